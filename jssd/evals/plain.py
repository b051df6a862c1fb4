"""Plain data as JSON: the only thing a program under test can hand back.

JSON values stand for themselves. What JSON lacks travels as an object with one key, its tag: tuple,
set, frozenset, dict, bytes, complex, big int, and the floats nan and inf. Anything else is refused,
so no object with a clever `__eq__` reaches the side that compares.

The text of this file is also run inside the sandbox: it imports the standard library only, and
nothing of jssd.
"""

import math
from typing import Any

MAX_DEPTH = 100  # Far below every recursion limit on either side.
_DIRECT_INT = 2**63  # Larger ones travel as hex, because Python caps decimal digits.


def encode(value: Any, depth: int = 0) -> Any:
    """The JSON form of a plain value.

    A subclass of a plain type (Counter, defaultdict, a namedtuple, IntEnum) is reduced to the plain
    value inside it, because an ordinary `==` against plain data would look at just that. Raises
    TypeError for everything else and ValueError for nesting deeper than MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__int__(value)
        return number if abs(number) < _DIRECT_INT else {"int": hex(number)}
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"float": float.__repr__(number)}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if isinstance(value, bytes):
        return {"bytes": bytes.hex(value)}
    if isinstance(value, dict):
        items = dict.items(value)
        return {"dict": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in items]}
    for base in (list, tuple, set, frozenset):
        if isinstance(value, base):
            inner: Any = base.__iter__  # Not the subclass's: it may yield what it likes.
            members = [encode(member, depth + 1) for member in inner(value)]
            return members if base is list else {base.__name__: members}
    raise TypeError(f"{type(value).__name__} is not plain data")


def decode(data: Any) -> Any:
    """The plain value of a JSON form.

    Raises ValueError, TypeError or RecursionError for a malformed form. Builds sets and dicts from
    the data, and crafted members make that slow: decode foreign data only where time is limited.
    """
    if not isinstance(data, (list, dict)):
        return data
    if isinstance(data, list):
        return [decode(member) for member in data]
    if len(data) != 1:
        raise ValueError("an object must have one key, its tag")
    ((tag, body),) = data.items()
    if tag == "dict":
        return {decode(key): decode(value) for key, value in body}
    if tag == "complex":
        real, imag = body
        return complex(decode(real), decode(imag))
    if tag in _FROM_TEXT:
        if not isinstance(body, str):
            raise TypeError(f"the body of {tag} must be text")
        return _FROM_TEXT[tag](body)
    if tag in _FROM_LIST:
        return _FROM_LIST[tag](decode(member) for member in body)
    raise ValueError(f"unknown tag {tag!r}")


_FROM_TEXT = {"int": lambda text: int(text, 16), "float": float, "bytes": bytes.fromhex}
_FROM_LIST = {"tuple": tuple, "set": set, "frozenset": frozenset}
