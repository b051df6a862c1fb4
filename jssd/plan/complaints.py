"""What compilers complain of, in words a user can act on."""

import dataclasses
import re
import signal
import traceback
from typing import Any

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)\s*([KMGT]?)i?B?"


@dataclasses.dataclass(frozen=True)
class Complaint:
    """Why a program did not compile.

    Attributes:
      kind: "memory" (it compiles, but not into this memory), "setting" (the config does not fit the
        hardware), "compiler" (it refused), "crash" (it died) or "timeout".
      text: one line or a few.
      wanted: bytes asked for; 0 where it is not said.
    """

    kind: str
    text: str
    wanted: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


def read(error: BaseException) -> Complaint:
    """The complaint behind an exception of building, lowering or compiling a program."""
    text = str(error).strip()
    if "RESOURCE_EXHAUSTED" in text or "Ran out of memory" in text:
        return _memory(text)
    if isinstance(error, (ValueError, FileNotFoundError)):
        return Complaint("setting", " ".join(text.split()))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Traces of C++ and of MLIR follow the first lines.
    told = " ".join(lines[:3])[:600] if lines else "no message"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames and not lines else ""
    return Complaint("compiler", f"{type(error).__name__}: {told}{where}")


def died(return_code: int, stderr: str) -> Complaint:
    """The complaint of a worker that ended without a result."""
    if return_code < 0:
        try:
            name = signal.Signals(-return_code).name
        except ValueError:
            name = f"signal {-return_code}"
        cause = f"the compiler's process was ended by {name}"
        if name == "SIGKILL":
            cause += ", as the system does when this machine's own memory runs out"
    else:
        cause = f"the compiler's process left with code {return_code}"
    # A failed check of the compiler says so on a line of its own.
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    checks = [line for line in lines if "Check fail" in line or line.startswith("F0")]
    last = (checks or lines or [""])[-1]
    return Complaint("crash", f"{cause}. Its last words: {last[:400] or 'none'}")


def timed_out(seconds: float) -> Complaint:
    """The complaint of a compile that took too long."""
    return Complaint(
        "timeout",
        f"not compiled within plan.timeout={seconds:g} seconds. Raise it, or set "
        "plan.optimization=O1 or plan.layers for a quick look.",
    )


def over(needed: float, memory: float) -> Complaint:
    """The complaint where the compiler does not compare with the memory itself (GPUs)."""
    return Complaint("memory", _told(needed, memory), needed)


def _memory(text: str) -> Complaint:
    """Of libtpu or XLA: what was asked for and what there is, and the largest parts if told."""
    asked = re.search(rf"(?:HLO temporaries|Used|allocate)\D{{0,40}}?{_SIZE}", text)
    there = re.search(rf"(?:available HBM \(|exceeds available\D*|of ){_SIZE}", text)
    parts = re.findall(rf"Size: {_SIZE}.*?Shape: (\S+)", text, re.DOTALL)
    wanted = _bytes(*asked.groups()) if asked else 0.0
    told = _told(wanted, _bytes(*there.groups())) if asked and there else text.splitlines()[0]
    if parts:
        largest = "; ".join(f"{size} {unit}iB {shape}" for size, unit, shape in parts[:5])
        told += f" Largest: {largest}."
    return Complaint("memory", told, wanted)


def _told(wanted: float, memory: float) -> str:
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    return (
        f"needs {gib(wanted)} of a device's {gib(memory)}: {gib(wanted - memory)} too much, "
        f"{wanted / max(memory, 1):.2f} times what there is."
    )


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]
