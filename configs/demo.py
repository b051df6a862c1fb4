"""Demo: self-distillation of a 135-million-parameter model, start to report, on a laptop's CPU.

    make demo

or, with the package and the model in place (`python third_party/fetch_smollm2.py`):

    python -m jssd.main --config=configs/demo.py --workdir=runs/demo

SmolLM2-135M-Instruct answers our training tasks once each at T 1.0 with top-k 20 and top-p 0.8, is
trained for a few dozen steps on what it said, right or wrong, and is scored on tasks from other
families. Hardware: two CPU cores, some 4 GB of memory. What to expect: greedy decoding hardly
moves; at T 1.0 without truncation the student is clearly better, because the tail that truncation
cut off while sampling has been trained away. The README has the numbers.
"""

from jssd import presets
from jssd.config import (
    Config,
    DecodeConfig,
    EngineConfig,
    EvalConfig,
    ExportConfig,
    FilterConfig,
    ModelSource,
    PromptsConfig,
    SamplingConfig,
    TrainConfig,
)


def get_config(variant: str = "") -> Config:
    """The run above; "smoke" shrinks it to a few steps."""
    config = Config(
        name="demo",
        model=ModelSource(path="assets/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32"),
        prompts=PromptsConfig(source="functions:train", template="task", limit=180),
        sampling=SamplingConfig(temperature=1.0, top_k=20, top_p=0.8, max_new_tokens=80),
        engine=EngineConfig(slots=48),
        # Most answers are cut at 80 tokens; an end there would teach stopping mid-sentence.
        filter=FilterConfig(truncated="no_eos"),
        train=TrainConfig(
            num_steps=45,
            global_batch_size=1,  # A packed row holds about four samples.
            seq_len=512,
            learning_rate=3e-5,  # Six times the paper's: the model is thirty times smaller.
            final_learning_rate=3e-6,
            warmup_steps=5,
            weight_decay=0.0,
            remat="none",
            loss_chunk=512,
            save_every=15,
            log_every=5,
        ),
        evaluate=EvalConfig(
            benchmarks=("functions",),
            decodes=[
                DecodeConfig(name="greedy", temperature=0.0),
                DecodeConfig(name="t0.8", temperature=0.8, top_p=0.95),
                DecodeConfig(name="t1.0", temperature=1.0),
            ],
            base_decode="greedy",
            student_decode="t0.8",
            n=2,
            ks=(1,),
            max_new_tokens=80,
            template="task",
            # This model likes to show an example call in a block of its own after the function.
            extraction="defining_fence",
        ),
        export=ExportConfig(temperature=0.8, top_p=0.95),
    )
    return presets.variant(config, variant)
