"""The instructions of an HLO text, by computation."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16,
    "f16": 16, "s16": 16, "u16": 16, "f32": 32, "s32": 32, "u32": 32, "s64": 64, "u64": 64,
    "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
_ARRAY = re.compile(r"\b(" + "|".join(_BITS) + r")\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      root: whether it is what the computation gives back.
      name: without the percent sign.
      type: of its result.
      opcode: "add", "all-gather-start".
      rest: operands and attributes, from after the opening bracket.
    """

    root: bool
    name: str
    type: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

    @property
    def where(self) -> str:
        """The operation of the model it came from, as JAX names it; empty where it is not told."""
        named = re.search(r'op_name="([^"]*)"', self.rest)
        return named[1] if named else ""

    def attribute(self, name: str) -> str:
        """The name or number after `name=`; empty where there is none."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


Computations = Mapping[str, Sequence[Instruction]]


def parse(text: str) -> tuple[Computations, str]:
    """The computations of `compiled.as_text()` by name, and the name of the entry."""
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            current.append(Instruction(bool(found[1]), *found.groups()[1:]))
    return computations, entry


def arrays(type_text: str) -> list[tuple[str, float]]:
    """Data type and bytes of every array of an HLO type."""
    return [
        (dtype, _BITS[dtype] / 8 * math.prod(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(type_text)
    ]
