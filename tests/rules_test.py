"""Rules of a config: what nothing reads is an error, and so is what could only end in one."""

import jax.numpy as jnp
import pytest

from jssd.config import MAX_SUPPORT, Config, TruncationConfig
from jssd.rules import validate
from jssd.sampling import truncate


def config(**fields) -> Config:
    """A config that breaks no rule, with dotted fields set, "__" for the dot."""
    made = Config()
    made.model.path, made.prompts.source = "model", "tasks:train"
    for name, value in fields.items():
        *path, last = name.split("__")
        section = made
        for part in path:
            section = getattr(section, part)
        setattr(section, last, value)
    return made


V6 = {"evaluate__benchmarks": ("livecodebench_v6",)}
BOTH = {"evaluate__benchmarks": ("livecodebench_v6", "functions")}
WINDOW = "2025-02-01:2025-03-31"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {**V6, "evaluate__extraction": "defining_fence"},
            r"evaluate\.extraction='defining_fence' is read by no benchmark .*livecodebench_v6.*"
            r"Leave it 'last_fence'\.",
        ),
        ({**V6, "evaluate__timeout": 3.0}, r"evaluate\.timeout=3\.0 is read by .*Leave it 10\.0"),
        (
            # Only grading has a time limit: a filter for form runs nothing.
            {**V6, "evaluate__timeout": 3.0, "filter__format": "python"},
            r"evaluate\.timeout=3\.0 is read by no",
        ),
        (
            {**BOTH, "evaluate__livecodebench__window": WINDOW},
            r"window='2025-02-01:2025-03-31' is read by benchmark 'livecodebench' only: "
            r"livecodebench_v6 has its own",
        ),
        *(
            (
                {f"evaluate__livecodebench__{name}": value},
                rf"livecodebench\.{name}=.* is read by no benchmark .*Name one of .*or leave it",
            )
            for name, value in (
                ("path", "data/lcb"),
                ("window", WINDOW),
                ("difficulty", "hard"),
                ("strict", ("exit",)),
            )
        ),
    ],
)
def test_settings_of_grading_that_nothing_reads(fields, message):
    with pytest.raises(ValueError, match=message):
        validate(config(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {**BOTH, "evaluate__extraction": "defining_fence", "evaluate__timeout": 3.0},
        {**V6, "evaluate__extraction": "defining_fence", "filter__format": "fence"},
        {**V6, "evaluate__timeout": 3.0, "filter__correct": "passed"},
        {**V6, "evaluate__livecodebench__path": "lcb", "evaluate__livecodebench__strict": ("all",)},
        {
            "evaluate__benchmarks": ("livecodebench_v6", "livecodebench"),
            "evaluate__livecodebench__window": WINDOW,
        },
    ],
)
def test_settings_of_grading_that_something_reads(fields):
    validate(config(**fields))


LAW = {"train__targets": "law", "engine__keep_law": True, "sampling__top_k": 20}
SWEEP = {"sweep__train_temperatures": (0.7, 1.3), "sweep__eval_temperatures": (1.0,)}


@pytest.mark.parametrize(
    ("fields", "stages", "message"),
    [
        ({"engine__keep_law": False}, ["sample", "sft"], r"'law' needs engine\.keep_law=True"),
        ({"engine__keep_law": False}, [], r"'law' needs engine\.keep_law=True"),  # All stages.
        ({"sampling__top_k": 0}, ["sample"], r"sampling\.top_k=0 must be 1 to 127"),
        ({"sampling__top_k": 128}, ["sample"], r"sampling\.top_k=128 must be 1 to 127"),
        ({**SWEEP, "sampling__top_k": 0}, ["sweep"], r"sampling\.top_k=0 must be 1 to 127"),
        (
            {**SWEEP, "sweep__train_truncations": [TruncationConfig(20), TruncationConfig()]},
            ["sweep"],
            r"sweep\.train_truncations\[1\]\.top_k=0 must be 1 to 127",
        ),
        ({**SWEEP, "engine__keep_law": False}, ["sweep"], r"'law' needs engine\.keep_law=True"),
    ],
)
def test_soft_targets_ask_for_laws_before_anything_is_sampled(fields, stages, message):
    with pytest.raises(ValueError, match=message):
        validate(config(**{**LAW, **fields}), stages)


@pytest.mark.parametrize(
    ("fields", "stages"),
    [
        ({}, []),
        ({"sampling__top_k": 127}, ["sample"]),
        ({"sampling__top_k": 0, "sampling__temperature": 0.0}, ["sample"]),  # One token.
        # Samples that are there may hold the laws.
        ({"engine__keep_law": False, "sampling__top_k": 0}, ["sft", "export", "evaluate"]),
        (
            {**SWEEP, "sampling__top_k": 0, "sweep__train_truncations": [TruncationConfig(5)]},
            ["sweep"],
        ),
    ],
)
def test_soft_targets_that_can_be(fields, stages):
    validate(config(**{**LAW, **fields}), stages)


def test_the_widest_law_is_what_a_draw_looks_at():
    # One less is certain: of as many as are looked at, a tie with the last could go on outside.
    top_k = jnp.array([MAX_SUPPORT - 1, MAX_SUPPORT])
    law = truncate.Law(jnp.ones(2), top_k, jnp.ones(2), jnp.zeros(2))
    found = truncate.find(jnp.tile(-jnp.arange(512.0), (2, 1)), law, truncate.NUM_CANDIDATES)
    assert found.certified_B.tolist() == [True, False]
