"""The paper's toy simulation (section 5.4): why one temperature suits a student better.

    python -m jssd.main --config=configs/toy.py --workdir=runs/toy

A vocabulary of 16, one fork, three locks; teacher and student decode with one temperature and one
top-p for all. No model, no data, seconds on a CPU. What to expect: the teacher passes 8.3 percent
at best, at T 0.64; its ideal student 13.8 percent, at T 2.09. Every published figure is a test, in
`tests/stages/toy_test.py`.
"""

from jssd import presets
from jssd.config import Config, SamplingConfig


def get_config(variant: str = "") -> Config:
    """The simulation above. It is as small in "smoke"."""
    config = Config(
        name="toy",
        stages=("toy",),
        sampling=SamplingConfig(temperature=0.9, top_p=0.85),  # Below 1, as in the paper's toy.
    )
    return presets.variant(config, variant)
