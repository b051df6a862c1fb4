"""How often a loop of an HLO text turns: read from its counter, the bound and the step.

Followed is what the compiler leaves of a counting loop: numbers, sums and differences of them, and
what a turn hands on unchanged, through tuples, copies and fusions.
"""

import dataclasses
import math
import re
from typing import Any

from jssd.plan.hlo_text import Computations, Instruction

_SAME = ("copy", "bitcast", "convert", "reshape", "opt-barrier")
_FOLLOWED = (*_SAME, "tuple", "get-tuple-element", "add", "subtract", "compare", "fusion", "call")
_WHOLE = re.compile(r"\(|(pred|[su]\d+)\[\]")  # Types that can tell: whole numbers, or tuples.
_SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "NE": "NE"}


@dataclasses.dataclass(frozen=True)
class _Carried:
    """What the turn was given at `index`, plus `added`."""

    index: int
    added: int = 0


@dataclasses.dataclass(frozen=True)
class _Compared:
    left: Any
    right: Any
    direction: str


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The tuple that a turn is given."""


def trip_count(computations: Computations, inside: str, loop: Instruction) -> int | None:
    """Turns of a `while`; None where data end it, or the text does not tell.

    Args:
      computations: of `hlo_text.parse`.
      inside: the computation that holds the loop.
      loop: the instruction.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(known[1])
    tuple_name = loop.operands[0]
    given = _Reader(computations, inside, ()).value(tuple_name)
    if given is None:  # XLA for CPUs calls a computation that holds nothing but the loop.
        given = _Reader(computations, inside, _arguments(computations, inside)).value(tuple_name)
    ends = _Reader(computations, loop.attribute("condition"), (_Loop(),)).root()
    made = _Reader(computations, loop.attribute("body"), (_Loop(),)).root()
    if not (isinstance(ends, _Compared) and isinstance(given, tuple) and isinstance(made, tuple)):
        return None
    counter, bound, direction = ends.left, ends.right, ends.direction
    if not isinstance(counter, _Carried) or _step(counter, made) == 0:
        counter, bound, direction = bound, counter, _SWAPPED.get(direction)
    if not isinstance(counter, _Carried):
        return None
    if isinstance(bound, _Carried) and _step(bound, made) == 0:  # Handed on by every turn.
        first = given[bound.index]
        bound = first + bound.added if isinstance(first, int) else None
    first, step = given[counter.index], _step(counter, made)
    if not (isinstance(first, int) and isinstance(bound, int) and step):
        return None
    return _turns(first + counter.added, bound, step, direction)


def _arguments(computations: Computations, name: str) -> tuple:
    """What a computation is called with; nothing where it is not called by name."""
    for caller, lines in computations.items():
        for one in lines:
            if one.opcode == "call" and one.attribute("to_apply") == name:
                reader = _Reader(computations, caller, _arguments(computations, caller))
                return tuple(map(reader.value, one.operands))
    return ()


def _step(carried: _Carried, made: tuple) -> int | None:
    """What a turn adds to what it was given; None where it makes something else of it."""
    after = made[carried.index]
    same = isinstance(after, _Carried) and after.index == carried.index
    return after.added if same else None


def _turns(first: int, bound: int, step: int, direction: str | None) -> int | None:
    """How often a counter from `first` in steps of `step` meets the condition, one after another.

    None where it never ends.
    """
    if direction in ("LE", "GE"):  # Whole numbers: the same as below (above) the next.
        bound, direction = (bound + 1, "LT") if direction == "LE" else (bound - 1, "GT")
    if direction == "NE":
        direction = "LT" if step > 0 else "GT"
        if (bound - first) % step or (bound - first) // step < 0:
            return None
    if direction not in ("LT", "GT"):
        return None
    ahead, forward = bound - first, step
    if direction == "GT":
        ahead, forward = -ahead, -forward
    if ahead <= 0:
        return 0
    return math.ceil(ahead / forward) if forward > 0 else None


class _Reader:
    """Values of one computation: numbers, tuples of values, `_Carried`, `_Compared`, or None.

    Args:
      computations: all.
      name: the one to read.
      arguments: values of its parameters.
    """

    def __init__(self, computations: Computations, name: str, arguments: tuple):
        self.computations, self.arguments = computations, arguments
        self.lines = {one.name: one for one in computations.get(name, ())}

    def root(self) -> Any:
        """What the computation gives back."""
        return next((self.value(one.name) for one in self.lines.values() if one.root), None)

    def value(self, name: str) -> Any:
        """The value of an instruction; None for all that is not followed."""
        one = self.lines.get(name)
        if one is None or not _WHOLE.match(one.type):
            return None
        if one.opcode == "constant":
            found = re.match(r"-?\d+(?=\))", one.rest)
            return int(found[0]) if found else None
        if one.opcode == "parameter":
            place = int(one.rest.partition(")")[0])
            return self.arguments[place] if place < len(self.arguments) else None
        if one.opcode not in _FOLLOWED:
            return None
        operands = [self.value(operand) for operand in one.operands]
        if one.opcode in _SAME:
            return operands[0]
        if one.opcode == "tuple":
            return tuple(operands)
        if one.opcode == "get-tuple-element":
            return _element(operands[0], int(one.attribute("index")))
        if one.opcode == "add":
            return _sum(operands[0], operands[1])
        if one.opcode == "subtract":
            return _sum(operands[0], -operands[1]) if isinstance(operands[1], int) else None
        if one.opcode == "compare":
            left, right = operands
            return _Compared(left, right, one.attribute("direction"))
        called = one.attribute("calls") or one.attribute("to_apply")
        return _Reader(self.computations, called, tuple(operands)).root()


def _element(whole: Any, index: int) -> Any:
    if isinstance(whole, _Loop):
        return _Carried(index)
    return whole[index] if isinstance(whole, tuple) and index < len(whole) else None


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, _Carried) and isinstance(right, int):
        return _Carried(left.index, left.added + right)
    return None
