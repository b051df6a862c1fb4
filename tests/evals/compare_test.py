"""Tests of what counts as equal."""

import json
import math
import time

import pytest

from jssd.evals import compare, plain

NAN = math.nan


def same(expected, actual) -> bool:
    return compare.same_value(plain.encode(expected), json.loads(json.dumps(plain.encode(actual))))


@pytest.mark.parametrize(
    "expected, actual",
    [
        (None, None),
        (True, True),
        (2, 2.0),
        (0.3, 0.1 + 0.2),
        (0.0, 1e-12),
        (1e300, 1e300 * (1 + 1e-12)),
        (NAN, NAN),
        (math.inf, math.inf),
        (10**40, 10**40),
        ("a", "a"),
        (b"a", b"a"),
        (1 + 2j, 1 + 2.0000000000001j),
        ([1, (2, [3.0])], [1, (2, [3])]),
        ({1, 2, 3}, {3, 2, 1}),
        ({1}, frozenset({1})),
        ({frozenset({1, 2, 9}), frozenset({8, 0})}, {frozenset({0, 8}), frozenset({9, 2, 1})}),
        ({"a": 1, "b": [0.3]}, {"b": [0.1 + 0.2], "a": 1}),
        ({(1, 2): "x", 3: {}}, {3: {}, (1, 2): "x"}),
    ],
)
def test_equal(expected, actual):
    assert same(expected, actual)


@pytest.mark.parametrize(
    "expected, actual",
    [
        (None, 0),
        (None, False),
        (True, 1),
        (0, False),
        (1, True),
        (1.0, True),
        (2, 2.001),
        (10**40, 10**40 + 1),
        (0.5, NAN),
        (math.inf, -math.inf),
        (math.inf, 1e308),
        (1.5, 10**400),
        ("1", 1),
        ("a", b"a"),
        ([1, 2], (1, 2)),
        ([1, 2], [1]),
        ([], None),
        ([], {}),
        ([], set()),
        (set(), {}),
        ((1,), (2,)),
        ({1, 2}, {1, 2, 3}),
        ({1}, [1]),
        ({1}, {True}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"b": 1}),
        ([True], [1]),
        (1 + 2j, 1 + 3j),
    ],
)
def test_different(expected, actual):
    assert not same(expected, actual)


@pytest.mark.parametrize(
    "text",
    ['{"set": [1, 1]}', '{"set": 5}', '{"dict": [[1]]}', '{"dict": [5]}', '{"int": "zz"}',
     '{"set": [1, 2], "tuple": []}', "{}", '{"dict": [["a", 1], ["a", 1]]}', '{"what": [1, 2]}'],
)  # fmt: skip
def test_malformed_answers_are_unequal(text):
    for expected in ({1, 2}, {"a": 1}, {"a": 1, "b": 2}, (1, 2), 5, 2**70, 1j):
        assert not compare.same_value(plain.encode(expected), json.loads(text))


def test_crafted_members_do_not_make_it_slow():
    crafted = {"set": [k * (2**61 - 1) for k in range(100_000)]}  # All hash alike.
    start = time.monotonic()
    assert not compare.same_value(plain.encode({1, 2}), crafted)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "expected, actual, is_same",
    [
        ("3\n", "3", True),
        ("1 2\n3\n", "  1 2  \n3\n\n", True),
        ("1 2", "1  2", True),
        ("1.50", "1.5", True),
        ("1e3", "1000", True),
        ("a b", "a  b", False),
        ("0.1", "0.10000001", False),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("yes", "Yes", False),
        ("1 x", "1.0 x", False),
        ("nan", "nan", True),
        ("1", "snan", False),
        ("", "", True),
        ("", "0", False),
        ("1\r\n2", "1\n2", True),
        ("1", "1e999999999", False),
    ],
)
def test_printed_text_by_the_rule_of_the_reference(expected, actual, is_same):
    assert compare.same_output(expected, actual) is is_same
