"""Plans of the presets at full depth, into results/plans/: what their notes and docs are made of.

    python tests/benchmarks/preset_plans.py                           every slice below, some hours
    python tests/benchmarks/preset_plans.py --only=qwen3_4b_instruct:v5p-64

Nothing is attached and nothing runs: this is stage `plan` of each preset, rows of 65,536 tokens,
for the slices named here. Compiles are kept in `runs/plans` and are not done twice while code,
compiler and config are the same. `python -m launch.render` then writes the tables; those of the
thinking presets too, whose programs are the same (`plans.SAME`). Needs the extra `plan`.
"""

import dataclasses
import json
import pathlib
import re
from importlib import metadata
from typing import Any

from absl import app, flags

from jssd.config import MeshConfig
from tests.configs_test import load

ROOT = pathlib.Path(__file__).parents[2]
_ONLY = flags.DEFINE_string("only", "", "a preset, or preset:hardware; empty is all")
# What of a compile is not looked at again.
_LEFT = (
    "largest", "largest_collectives", "loops_assumed", "custom_calls", "lower_seconds",
    "compile_seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slice:
    """Hardware with a mesh; `decode` asks for the sampling program of one of its hosts too."""

    hardware: str
    mesh: str  # "expert 8 context 2": all axes that are not 1.
    accum: int = 1
    decode: bool = True


_DENSE = (
    Slice("b200x8", "fsdp 8", 4),
    Slice("v5p-64", "fsdp 32"),
    Slice("v5e-256", "fsdp 32 context 8"),
    Slice("v6e-64", "fsdp 32 context 2"),
    Slice("tpu7x-4x4x4", "fsdp 32 context 4"),
)
_EXPERTS = (
    Slice("b200x8", "expert 8", 4),
    Slice("v5p-64", "fsdp 2 expert 8 context 2", 2),
    Slice("v5e-256", "expert 16 context 16", 2),
    Slice("v6e-64", "expert 8 context 8", 4),
    Slice("tpu7x-4x4x4", "fsdp 4 expert 8 context 4"),
)
# The smallest slice of each kind that holds the step, and the next smaller, which does not.
_SMALLEST = (
    Slice("b200x4", "expert 4", 8, decode=False),
    Slice("v5p-8", "expert 4", 8, decode=False),
    Slice("v5p-16", "expert 4 context 2", 8, decode=False),
    Slice("v5p-32", "expert 8 context 2", 4, decode=False),
    Slice("v5e-32", "expert 4 context 8", 8, decode=False),
    Slice("v5e-64", "expert 8 context 8", 4, decode=False),
    Slice("v6e-16", "expert 4 context 4", 8, decode=False),
    Slice("v6e-32", "expert 8 context 4", 4, decode=False),
    Slice("tpu7x-8", "expert 4 context 2", 8, decode=False),
)
SLICES = {
    "qwen3_30b_a3b_instruct": (*_EXPERTS, *_SMALLEST),
    "qwen3_4b_instruct": _DENSE,
    "llama31_8b_instruct": _DENSE,
}


def measure(preset: str, one: Slice) -> dict[str, Any]:
    """The plan of one slice, without what is not looked at again."""
    from jssd.stages import plan

    config, _ = load(ROOT / "configs" / f"{preset}.py")
    sizes = {axis: int(size) for axis, size in re.findall(r"(\w+) (\d+)", one.mesh)}
    config.hardware = one.hardware
    config.mesh = MeshConfig(**{"fsdp": 1, **sizes})
    config.train.grad_accum = one.accum
    config.plan.programs = ("train", "decode") if one.decode else ("train",)
    config.plan.optimization = "O1"
    made = plan.run(config, ROOT / "runs" / "plans")
    for name, program in made["programs"].items():
        made["programs"][name] = {key: program[key] for key in program if key not in _LEFT}
    del made["assumptions"], made["search"]
    return made | {"versions": {name: metadata.version(name) for name in ("jax", "libtpu")}}


def main(_) -> None:
    for preset, slices in SLICES.items():
        for one in slices:
            if _ONLY.value in ("", preset, f"{preset}:{one.hardware}"):
                path = ROOT / "results" / "plans" / preset / f"{one.hardware}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(measure(preset, one), indent=1) + "\n"
                path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
