"""When an answer counts as equal to the expected one: rules for values and for printed text."""

import ast
import json
import math
from decimal import Decimal
from typing import Any

from jssd.evals import plain

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


def same_result(expected: Any, actual: Any, values: str) -> bool:
    """Whether a function returned what it must, by one of the rules of `Protocol.values`.

    `expected` is a plain value. `actual` is what came out of the sandbox: the JSON form of
    `plain.encode` or, by rule "text", the text that the result prints as, an outermost tuple as a
    list. "text" is the reference harness's rule: 3 and "3", 1 and 1.0 are the same to it; 0.3 and
    0.1 + 0.2, or the lists [1] and [1.0], are not. "loose" is `same_value` but for tuples, which
    count as lists at every depth.
    """
    if values == "text":
        text = expected if isinstance(expected, str) else str(expected)
        return isinstance(actual, str) and same_output(text, actual)
    form = plain.encode(expected)
    if values == "loose":
        form, actual = _without_tuples(form), _without_tuples(actual)
    return same_value(form, actual)


def same_answer(expected: str, actual: str, rule: str) -> bool:
    """Whether a short answer is right: "integer" compares two texts of digits as numbers, "literal"
    two Python literals by `same_value`. An answer that is neither is wrong.
    """
    try:
        if rule == "integer":
            return int(expected) == int(actual)
        want, got = ast.literal_eval(expected), ast.literal_eval(actual)
        return same_value(plain.encode(want), plain.encode(got))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


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


def _without_tuples(data: Any) -> Any:
    """The same JSON form with lists in place of tuples."""
    if isinstance(data, list):
        return [_without_tuples(member) for member in data]
    if isinstance(data, dict):
        inner = {tag: _without_tuples(body) for tag, body in data.items()}
        return inner["tuple"] if list(inner) == ["tuple"] else inner
    return data


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
