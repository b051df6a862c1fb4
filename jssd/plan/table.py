"""A plan as tables of text, for the terminal and the report."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

_GIB = 2**30
_HELD = ("params", "optimizer", "gradients", "cache", "batch")


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, heads and rows of text."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def headline(plan: dict[str, Any]) -> str:
    """What was planned, where, and whether it fits, in one line."""
    sizes = {axis: "the rest" if size < 0 else size for axis, size in plan["mesh"].items()}
    mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size != 1)
    layers = plan["layers"]
    depth = f", {layers['compiled']} of {layers['model']} layers" if layers["cut"] else ""
    if plan.get("grad_accum", 1) > 1:
        mesh = f"{mesh or 'of one device'}, grad_accum {plan['grad_accum']}"
    kinds = {result["complaint"]["kind"] for result in plan["programs"].values() if _bad(result)}
    verdict = "fits on" if not kinds else "does not fit on"
    verdict = verdict if kinds <= {"memory"} else "does not compile whole for"
    return (
        f"{plan['name']}{depth} {verdict} {plan['hardware']}: {plan['devices']} x "
        f"{plan['kind']}, {gib(plan['memory'])} GiB each, mesh {mesh or 'of one device'}"
    )


def tables(plan: dict[str, Any]) -> list[Table]:
    """Memory, speed, collectives, slots and, where there was one, the search."""
    programs = plan["programs"]
    made = [_memory(programs), _speed(programs), _collectives(programs)]
    if plan.get("slots"):
        slots = plan["slots"]
        rows = [(f"{int(length):,}", f"{count:,}") for length, count in slots["by_length"].items()]
        made.append(Table(f"slots of a host ({slots['how']})", ("tokens", "slots"), rows))
    if plan.get("search"):
        rows = [
            (
                one["hardware"], _mesh(one["mesh"]), str(one["grad_accum"]), _fits(one),
                gib(one["memory"]["needed"]) if "memory" in one else "",
                seconds(one["times"]["bound"]) if "times" in one else "",
                seconds(one["times"]["serial"]) if "times" in one else "",
            )
            for one in plan["search"]
        ]  # fmt: skip
        heads = (
            "hardware",
            "mesh",
            "grad_accum",
            "fits",
            "needs GiB",
            "at least s/step",
            "no overlap",
        )
        made.append(Table("search, train step", heads, rows))
    return [table for table in made if table.rows]


def complaints(plan: dict[str, Any]) -> list[str]:
    """What did not compile or fit, a line each, with the largest arrays of a train step."""
    lines = []
    for name, result in plan["programs"].items():
        if "complaint" in result:
            lines.append(f"{name}: {result['complaint']['text']}")
            if result["complaint"]["kind"] == "memory":
                if held := result.get("bytes", {}):
                    parts = ", ".join(f"{what} {gib(size)}" for what, size in held.items())
                    lines.append(f"{name}: of these are, in GiB, {parts}.")
                lines += [
                    f"{name}: {gib(one['bytes'])} GiB is {one['dtype']}{one['shape']} of "
                    f"{one['where']}"
                    for one in result.get("largest", [])[:4]
                ]
    return lines


def notes(plan: dict[str, Any]) -> list[str]:
    """What else is to be known of the programs, a line each."""
    return [
        f"{name}: {result['note']}."
        for name, result in plan["programs"].items()
        if result.get("note")
    ]


def gib(size: float) -> str:
    """Bytes in GiB with two digits after the point, three where there is little."""
    size /= _GIB
    return f"{size:.2f}" if size >= 0.1 or not size else f"{size:.3f}"


def seconds(value: float) -> str:
    """Seconds with three digits that count."""
    if not value:
        return "0"
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value < 1000 else f"{value:.0f}"
    )


def _bad(result: dict[str, Any]) -> bool:
    return "complaint" in result


def _mesh(mesh: dict[str, int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "one device"


def _fits(result: dict[str, Any]) -> str:
    if "complaint" not in result:
        return "yes"
    return "no" if result["complaint"]["kind"] == "memory" else result["complaint"]["kind"]


def _memory(programs: dict[str, Any]) -> Table:
    heads = (
        "GiB a device",
        "fits",
        "needs",
        "of",
        "params",
        "optimizer",
        "gradients",
        "KV cache",
        "batch",
        "rest",
    )
    rows = []
    for name, result in programs.items():
        held, memory = result.get("bytes", {}), result.get("memory")
        known = [gib(held[part]) if part in held else "" for part in _HELD]
        if memory is None:
            rows.append((name, _fits(result), "", "", *known, ""))
            continue
        rest = max(memory["needed"] - sum(held.values()), 0.0)
        needed, there = gib(memory["needed"]), gib(memory["available"])
        rows.append((name, _fits(result), needed, there, *known, gib(rest)))
    return Table("memory; rest is activations and temporaries", heads, rows)


def _speed(programs: dict[str, Any]) -> Table:
    heads = (
        "at best", "s/step", "limit", "compute", "memory", "links", "network", "no overlap",
        "tokens/s", "MFU at most", "written/model FLOPs", "remat",
    )  # fmt: skip
    rows = []
    for name, result in programs.items():
        if "times" not in result:
            continue
        times, rates = result["times"], result["rates"]
        parts = [seconds(times[part]) for part in ("compute", "memory", "links", "network")]
        share = {key: f"{100 * value:.0f} %" for key, value in rates.items()}
        ratio = f"{rates['written_over_model']:.2f}" if "written_over_model" in rates else ""
        rows.append(
            (
                name, seconds(times["bound"]), times["limit"], *parts, seconds(times["serial"]),
                f"{rates['tokens_per_s']:,.0f}", share.get("mfu_bound", ""), ratio,
                share.get("remat_overhead", ""),
            )
        )  # fmt: skip
    return Table("speed", heads, rows)


def _collectives(programs: dict[str, Any]) -> Table:
    rows = []
    for name, result in programs.items():
        for axes, kinds in sorted(result.get("collectives", {}).items()):
            for kind, size in sorted(kinds.items(), key=lambda item: -item[1]):
                if size >= 2**20:
                    rows.append((name, axes, kind, gib(size)))
    heads = ("collectives", "mesh axes", "kind", "GiB sent by a device")
    return Table("collectives of a step, of 1 MiB and more", heads, _merged(rows))


def _merged(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows whose first cell repeats the one above are left blank there."""
    made, last = [], ""
    for row in rows:
        made.append(row if row[0] != last else ("", *row[1:]))
        last = row[0]
    return made
