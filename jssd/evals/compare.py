"""When an answer counts as equal to the expected one: rules for values and for printed text."""

import json
import math
from decimal import Decimal
from typing import Any

# Sums taken in another order differ by a few units in the last place, real mistakes by more.
REL_TOL = 1e-9
ABS_TOL = 1e-9


def same_value(expected: Any, actual: Any) -> bool:
    """Whether two values, both in the JSON form of `plain.encode`, are equal.

    As Python's `==` on the plain values, with these differences: True and 1 differ; floats may be
    off by REL_TOL or ABS_TOL, also against an int; nan equals nan; members of sets and keys of
    dicts must agree in type (1 is not 1.0). As in `==`, list and tuple differ, set and frozenset
    do not.

    `actual` is foreign data and may be malformed: then it is just unequal. Nothing of it is hashed
    except as text, so crafted members cannot make this slow.
    """
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if _is_number(expected) and _is_number(actual):
        return _same_number(_number(expected), _number(actual))
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same_value, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict) and len(actual) == 1:
        return _same_tagged(expected, actual)
    return type(expected) is type(actual) and expected == actual


def same_output(expected: str, actual: str) -> bool:
    """Whether printed text is right, by the rule of the reference harness (paper, protocol).

    Both texts are stripped and split into lines, each line is stripped. Lines must agree one by
    one: exactly, or token by token as decimal numbers.
    """
    expected_lines = [line.strip() for line in expected.strip().split("\n")]
    actual_lines = [line.strip() for line in actual.strip().split("\n")]
    return len(expected_lines) == len(actual_lines) and all(
        map(_same_line, expected_lines, actual_lines)
    )


def _same_line(expected: str, actual: str) -> bool:
    if expected == actual:
        return True
    expected_tokens, actual_tokens = expected.split(), actual.split()
    if len(expected_tokens) != len(actual_tokens):
        return False
    try:
        return all(
            Decimal(a) == Decimal(b) for a, b in zip(expected_tokens, actual_tokens, strict=True)
        )
    except ArithmeticError:  # A token that is not a number.
        return False


def _same_tagged(expected: dict, actual: dict) -> bool:
    ((tag, body),), ((actual_tag, actual_body),) = expected.items(), actual.items()
    both_sets = {tag, actual_tag} <= {"set", "frozenset"}
    if type(body) is not type(actual_body) or (tag != actual_tag and not both_sets):
        return False
    if both_sets:
        return sorted(map(_key, body)) == sorted(map(_key, actual_body))
    return _same_items(body, actual_body) if tag == "dict" else same_value(body, actual_body)


def _same_items(expected: list, actual: list) -> bool:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in actual):
        return False
    values = {_key(key): value for key, value in actual}
    if len(values) != len(actual) or len(actual) != len(expected):
        return False
    return all(
        _key(key) in values and same_value(value, values[_key(key)]) for key, value in expected
    )


def _key(data: Any) -> str:
    """Text that two members share exactly when they are the same value of the same type."""
    return json.dumps(_ordered(data), sort_keys=True)


def _ordered(data: Any) -> Any:
    """The same form with the members of frozensets sorted: iteration gives them in any order."""
    if isinstance(data, list):
        return [_ordered(member) for member in data]
    if isinstance(data, dict):
        inner = {tag: _ordered(body) for tag, body in data.items()}
        members = inner.get("frozenset")
        return {"frozenset": sorted(map(_key, members))} if isinstance(members, list) else inner
    return data


def _is_number(data: Any) -> bool:
    if isinstance(data, dict):
        return any(isinstance(data.get(tag), str) for tag in ("int", "float"))
    return isinstance(data, (int, float))


def _number(data: Any) -> int | float:
    if not isinstance(data, dict):
        return data
    try:
        return int(data["int"], 16) if "int" in data else float(data["float"])
    except ValueError:
        return math.nan  # Malformed.


def _same_number(expected: int | float, actual: int | float) -> bool:
    if isinstance(expected, int) and isinstance(actual, int):
        return expected == actual
    try:
        both_nan = math.isnan(expected) and math.isnan(actual)
        return both_nan or math.isclose(expected, actual, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    except OverflowError:  # An int beyond the range of floats.
        return False
