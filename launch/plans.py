"""The plans kept in results/plans/, and the tables that other files hold of them.

`tests/benchmarks/preset_plans.py` makes the plans; `python -m launch.render` writes the tables.
"""

import json
import pathlib
import textwrap
from typing import Any

from jssd.plan import hardware, table

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "results" / "plans"
# Presets whose programs are another's but for constants of the schedule; a test compares them.
SAME = {
    "qwen3_30b_a3b_thinking": "qwen3_30b_a3b_instruct",
    "qwen3_4b_thinking": "qwen3_4b_instruct",
}
# A preset's note is made anew between these two.
_HEAD, _FOOT = "What `plan` says ", "Not published,"
_SMALL = 2**27  # Bytes; what an axis sends below that is not told.

Rows = list[tuple[str, ...]]


def presets() -> list[str]:
    """The presets that have plans."""
    planned = {folder.name for folder in RESULTS.iterdir() if folder.is_dir()}
    return sorted(planned | {preset for preset, source in SAME.items() if source in planned})


def kept(preset: str) -> list[dict[str, Any]]:
    """A preset's plans: by kind of chip, the smallest slice first."""
    folder = RESULTS / SAME.get(preset, preset)
    read = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    return sorted(read, key=lambda plan: (plan["kind"], plan["devices"]))


def model(plan: dict[str, Any]) -> str:
    """The kind of chip by the name that hardware goes by, such as "v5e"."""
    return hardware.parse(plan["hardware"]).model


def smallest(preset: str, chip: str) -> dict[str, Any] | None:
    """The plan that fits with the fewest devices of that kind; None where there is none."""
    fits = lambda plan: plan["programs"]["train"]["memory"]["fits"]
    return next((p for p in kept(preset) if model(p) == chip and fits(p)), None)


def mesh(plan: dict[str, Any]) -> str:
    """Mesh and micro-batches of a plan, as the tables have it."""
    sizes = [f"{axis} {size}" for axis, size in plan["mesh"].items() if size != 1]
    accum = [f"accum {plan['grad_accum']}"] if plan["grad_accum"] > 1 else []
    return " ".join(sizes + accum) or "one device"


def needs(plan: dict[str, Any]) -> str:
    """GiB of a device that a training step needs, and that there are."""
    memory = plan["programs"]["train"]["memory"]
    return f"{_gib(memory['needed'])} of {_gib(memory['available'])}"


def note(preset: str) -> str:
    """The section of a preset's docstring that its plans make."""
    plans = kept(preset)
    versions = plans[0]["versions"]
    text = (
        f"{_HEAD}at full depth, 32 rows of 65,536 tokens a step, JAX {versions['jax']} and libtpu "
        f"{versions['libtpu']} at {plans[0]['optimization']}. A line is `--stages=plan` with "
        "--config.hardware and what `mesh` says as flags, --config.mesh.expert=8 and "
        "--config.train.grad_accum=4 for example; all are `tests/benchmarks/preset_plans.py`. GiB "
        "are of a device; what is sent is by a device and a step. Seconds are the slowest of "
        "arithmetic, memory and links at full speed, no forecast."
    )
    if preset in SAME:
        text += f" The programs are those of {SAME[preset]}."
    text = textwrap.fill(text, 100, break_on_hyphens=False) + "\n"
    for rows in (_memory(plans), _speed(plans), _slots(plans)):
        if len(rows) > 1:
            text += "\n" + "".join(f"    {line}\n" for line in _aligned(rows))
    return text + "\n"


def documented(text: str, preset: str) -> str:
    """A preset's file, `text`, with its note made anew."""
    head, rest = text.split(_HEAD, 1)
    return head + note(preset) + _FOOT + rest.split(_FOOT, 1)[1]


def overview() -> str:
    """All presets beside each other, a line for each slice, for docs/hardware.md."""
    lines = [
        "| preset | hardware | mesh | needs GiB a device | s/step at best | slots of a host |",
        "|---|---|---|---|---|---|",
    ]
    for preset in sorted(set(presets()) - set(SAME)):
        for plan in kept(preset):
            train, slots = plan["programs"]["train"], plan.get("slots")
            bound = table.seconds(train["times"]["bound"]) if "times" in train else "does not fit"
            most = f"{slots['most']:,}" if slots else "0" if "decode" in plan["programs"] else ""
            cells = (f"`{preset}`", plan["hardware"], mesh(plan), needs(plan), bound, most)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _memory(plans: list[dict[str, Any]]) -> Rows:
    heads = ("GiB", "mesh", "fits", "needs", "of", "params", "optim", "grads", "rest")
    rows: Rows = [heads]
    for plan in plans:
        train = plan["programs"]["train"]
        held, memory = train["bytes"], train["memory"]
        parts = [held["params"], held["optimizer"], held["gradients"]]
        rest = max(memory["needed"] - sum(held.values()), 0)
        sizes = [_gib(size) for size in (memory["needed"], memory["available"], *parts, rest)]
        fits = "yes" if memory["fits"] else "no"
        rows.append((plan["hardware"], mesh(plan), fits, *sizes))
    return rows


def _speed(plans: list[dict[str, Any]]) -> Rows:
    heads = ("at best", "s/step", "limit", "MFU", "FLOPs/model's", "remat", "GiB sent over axes")
    rows: Rows = [heads]
    for plan in plans:
        train = plan["programs"]["train"]
        if "times" not in train:
            continue
        rates, times = train["rates"], train["times"]
        sent = {axes: sum(kinds.values()) for axes, kinds in train["collectives"].items()}
        sent = sorted(sent.items(), key=lambda item: -item[1])
        rows.append(
            (
                plan["hardware"], table.seconds(times["bound"]), times["limit"],
                f"{100 * rates['mfu_bound']:.0f} %", f"{rates['written_over_model']:.2f}",
                f"+{100 * rates['remat_overhead']:.0f} %",
                ", ".join(f"{axes} {_gib(size)}" for axes, size in sent if size >= _SMALL),
            )
        )  # fmt: skip
    return rows


def _slots(plans: list[dict[str, Any]]) -> Rows:
    asked = [plan for plan in plans if "decode" in plan["programs"]]
    lengths = next((list(p["slots"]["by_length"]) for p in asked if p["slots"]), [])
    rows = [("slots of a host", *(f"{int(length):,} tokens" for length in lengths), "s/token")]
    for plan in asked:
        slots = plan["slots"]
        counts = [f"{count:,}" for count in slots["by_length"].values()] if slots else []
        counts = counts or ["0"] * len(lengths)
        step = table.seconds(slots["times"]["bound"]) if slots and "times" in slots else ""
        rows.append((plan["hardware"], *counts, step))
    return rows if lengths else []


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def _aligned(rows: Rows) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
