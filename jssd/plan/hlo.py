"""The collectives of a compiled program, read from its HLO text: bytes, groups and how often.

The compiler's own cost analysis counts the body of a loop once, whatever its trip count. Here every
collective is counted as often as the loops around it turn.

A group holds positions of devices in the program's device list, which is the mesh read row by row.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from jssd.plan import hlo_text, trips
from jssd.plan.hlo_text import Instruction

Groups = tuple[tuple[int, ...], ...]

_KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
# Run their computation once, now or beside what follows: a call to a SparseCore, of TPUs that have
# them sum and scatter, is a `call-start`.
_CALLS = ("fusion", "call", "call-start", "async-start")


def assumed_turns(where: str, turns: dict[str, int]) -> int:
    """Turns of a loop that ends when its data say so: those of the scope it is written in, or 1."""
    return next((number for scope, number in turns.items() if scope in where), 1)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction of a program.

    Attributes:
      kind: "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
        "collective-permute" or "collective-broadcast".
      bytes: what one device sends each time, by the ring algorithm; of a ragged exchange, as if it
        were even.
      times: how often it runs in one run of the program.
      groups: devices that take part together; of a permutation, the pairs (from, to).
      where: the operation of the model it came from, as JAX names it.
      dtypes: of what is sent.
    """

    kind: str
    bytes: float
    times: int
    groups: Groups
    where: str
    dtypes: tuple[str, ...]


class Program:
    """A parsed HLO text.

    Args:
      text: `compiled.as_text()`.
      num_devices: of the program.
      turns: by named scope, of loops whose trip count the text does not tell, because it depends on
        data.
      slices: of TPUs, which hold equal parts of the devices one after another.
    """

    def __init__(
        self,
        text: str,
        num_devices: int,
        turns: dict[str, int] | None = None,
        slices: int = 1,
    ):
        self.num_devices, self.turns, self.slices = num_devices, turns or {}, slices
        self.untold: list[str] = []  # Loops whose number of turns was assumed, by operation.
        self._computations, self._entry = hlo_text.parse(text)

    def collectives(self) -> list[Collective]:
        """Every collective that moves something, outermost loops first."""
        self.untold = []
        return [one for one in self._walk(self._entry, 1, "") if one.bytes]

    def custom_calls(self) -> list[str]:
        """What the program calls that its compiler did not make: libraries and kernels."""
        found = (
            re.search(r'custom_call_target="([^"]+)"', one.rest)
            for computation in self._computations.values()
            for one in computation
            if one.opcode == "custom-call"
        )
        return sorted({match[1] for match in found if match})

    def _walk(self, name: str, times: int, where: str) -> Iterator[Collective]:
        """Those of a computation that runs `times` times, called from `where`."""
        types = {one.name: one.type for one in self._computations[name]}
        for one in self._computations[name]:
            kind = one.opcode.removesuffix("-start")
            if kind in _KINDS:
                # A TPU's reduce-scatter is a fusion of this name around an all-reduce.
                scatters = kind == "all-reduce" and name.startswith("all-reduce-scatter")
                kind = "reduce-scatter" if scatters else kind
                found = self._collective(kind, one, types, times)
                yield dataclasses.replace(found, where=one.where or where or one.name)
            elif one.opcode == "send" and "_xla_megascale_transfer_type" in one.rest:
                yield self._between_slices(one, types, times)
            elif one.opcode == "while":
                turns = times * self._turns(one, name)
                for part in ("condition", "body"):
                    yield from self._walk(one.attribute(part), turns, one.where)
            elif one.opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
                found = branches[1] if branches else one.rest.partition("true_computation")[2]
                ways = [
                    list(self._walk(branch, times, one.where))
                    for branch in re.findall(r"%([\w.\-]+)", found)
                    if branch in self._computations
                ]
                yield from max(
                    ways, key=lambda way: sum(c.bytes * c.times for c in way), default=[]
                )
            elif one.opcode in _CALLS:
                called = one.attribute("calls") or one.attribute("to_apply")
                if called in self._computations:
                    yield from self._walk(called, times, one.where)

    def _between_slices(self, one: Instruction, types: dict[str, str], times: int) -> Collective:
        """What libtpu hands to the host to exchange with the same device of every other slice."""
        named = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.rest)
        kind = named[1].lower().replace("_", "-") if named else "send"
        kind = kind if kind in _KINDS else "collective-permute"
        each = self.num_devices // self.slices
        groups = tuple(tuple(range(first, self.num_devices, each)) for first in range(each))
        return self._sent(kind, one, types, times, groups, one.operands[:1])

    def _collective(self, kind: str, one: Instruction, types: dict[str, str], times: int):
        pairs = re.search(r"source_target_pairs=\{\{(.*?)\}\}", one.rest)
        groups = _pairs(pairs[1]) if pairs else replica_groups(one.rest, self.num_devices)
        operands = one.operands[:1] if kind == "ragged-all-to-all" else one.operands
        return self._sent(kind, one, types, times, groups, operands)

    def _sent(self, kind: str, one: Instruction, types, times: int, groups: Groups, operands):
        arrays = [array for operand in operands for array in hlo_text.arrays(types[operand])]
        size, n = sum(size for _, size in arrays), max(map(len, groups), default=1)
        sent = {
            "all-gather": size * (n - 1),
            "all-reduce": 2 * size * (n - 1) / n,
            "collective-permute": size,
            "collective-broadcast": size,
        }.get(kind, size * (n - 1) / n)
        dtypes = tuple(sorted({dtype for dtype, _ in arrays}))
        where = one.where or one.name
        return Collective(kind, sent if n > 1 else 0.0, times, groups, where, dtypes)

    def _turns(self, loop: Instruction, inside: str) -> int:
        """Trip count as the text tells it; else what is assumed of a loop that data end."""
        if (told := trips.trip_count(self._computations, inside, loop)) is not None:
            return told
        self.untold.append(loop.where or loop.name)
        return assumed_turns(self.untold[-1], self.turns)


def replica_groups(text: str, num_devices: int) -> Groups:
    """The groups of a collective's attributes, in any of the three notations of HLO.

    `{{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)` (devices counted, transposed, cut into rows), and
    `mesh['a'=4,'b'=2] {'a'}` (the groups lie along the named axes). None is one group of all.
    """
    if found := re.search(r"replica_groups=\{\{(.*?)\}\}", text):
        return _pairs(found[1])
    if found := re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _rows(_iota(found[1]))
    found = re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}(?!\))", text
    )
    if not found:
        return (tuple(range(num_devices)),)
    names, sizes = zip(*re.findall(r"'([^']+)'=(\d+)", found[1]))
    sizes = list(map(int, sizes))
    devices = np.arange(math.prod(sizes))
    if found[2]:
        shape = re.search(r"\[([\d,]+)\]", found[2])
        order = re.search(r"T\(([\d,]+)\)", found[2])
        assert shape
        devices = devices.reshape(_ints(shape[1]))
        devices = devices.transpose(_ints(order[1])) if order else devices
    # A part of an axis is written 'a':(before)size; every axis is cut into (before, size, after).
    cuts = {name: (1, size, 1) for name, size in zip(names, sizes)}
    named = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", found[3])
    for name, before, size in named:
        if size:
            whole = sizes[names.index(name)]
            cuts[name] = (int(before), int(size), whole // int(before) // int(size))
    grid = devices.reshape([size for name in names for size in cuts[name]])
    taking = [
        3 * names.index(name) + part
        for name, _, size in named
        for part in ((1,) if size else (0, 1, 2))
    ]
    rest = [axis for axis in range(grid.ndim) if axis not in taking]
    grid = grid.transpose(rest + taking)
    width = math.prod(grid.shape[len(rest) :])
    return _rows(grid.reshape(-1, width))


def varying_axes(groups: Groups, mesh: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    Args:
      groups: positions in the mesh, read row by row.
      mesh: size of each axis, in order.
    """
    shape = tuple(mesh.values())
    varying = set()
    for group in groups:
        places = np.array(np.unravel_index(np.array(group), shape))
        varying |= set(np.flatnonzero((places != places[:, :1]).any(axis=1)))
    return tuple(axis for index, axis in enumerate(mesh) if index in varying)


def by_axes(found: Sequence[Collective], mesh: dict[str, int]) -> dict[str, dict[str, float]]:
    """Bytes that a device sends in one run, by mesh axes ("fsdp", "fsdp*tensor"), then by kind."""
    table: dict[str, dict[str, float]] = collections.defaultdict(
        lambda: collections.defaultdict(float)
    )
    for one in found:
        axes = "*".join(varying_axes(one.groups, mesh))
        table[axes][one.kind] += one.bytes * one.times
    return {axes: dict(kinds) for axes, kinds in table.items()}


def _ints(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _pairs(text: str) -> Groups:
    """Groups of `0,1},{2,3`."""
    return tuple(tuple(_ints(part)) for part in text.split("},{") if part)


def _rows(array: np.ndarray) -> Groups:
    return tuple(tuple(map(int, row)) for row in array)


def _iota(text: str) -> np.ndarray:
    """The array of `[2,4]<=[4,2]T(1,0)`."""
    shape, counted, order = re.fullmatch(
        r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text
    ).groups()  # pyright: ignore[reportOptionalMemberAccess]
    devices = np.arange(math.prod(_ints(counted))).reshape(_ints(counted))
    return (devices.transpose(_ints(order)) if order else devices).reshape(_ints(shape))
