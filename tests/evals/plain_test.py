"""Tests of the language a program under test answers in."""

import collections
import enum
import json
import math

import pytest

from jssd.evals import plain

VALUES = [
    None,
    True,
    0,
    -7,
    2**63,
    -(10**5000),
    0.1,
    -0.0,
    math.inf,
    "text \ud800 \n é",
    b"\x00\xff",
    complex(1, -math.inf),
    [],
    [1, [2, (3, "x")]],
    (),
    ({1, 2}, frozenset({(1, 2)})),
    {},
    {"tuple": 1, 2: [None], (1, 2): {"a": {True}}},
    {frozenset({1}): 1},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_plain_values_survive_the_trip(value):
    back = plain.decode(json.loads(json.dumps(plain.encode(value))))
    assert back == value
    assert type(back) is type(value)


def test_nan_survives_the_trip():
    assert math.isnan(plain.decode(json.loads(json.dumps(plain.encode(math.nan)))))


def test_subclasses_are_reduced_to_the_plain_value_inside():
    class Colour(enum.IntEnum):
        RED = 3

    class Liar(list):
        def __iter__(self):
            return iter(["lie"])

    point = collections.namedtuple("point", "x y")
    assert plain.encode(collections.Counter("aab")) == {"dict": [["a", 2], ["b", 1]]}
    assert plain.encode(point(1, 2)) == {"tuple": [1, 2]}
    assert plain.encode(Colour.RED) == 3
    assert plain.encode(Liar([1, 2])) == [1, 2]


@pytest.mark.parametrize("value", [object(), iter([1]), range(3), {"a": len}, [1, map], type])
def test_other_objects_are_refused(value):
    with pytest.raises(TypeError, match="not plain data"):
        plain.encode(value)


def test_endless_nesting_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested deeper"):
        plain.encode(loop)


@pytest.mark.parametrize(
    "text",
    ['{"set": [[1]]}', '{"object": 1}', '{"int": 5}', '{"dict": [1]}', "{}", '{"complex": [1]}',
     '{"set": 1}', '{"a": 1, "b": 2}', '{"bytes": "zz"}', '{"dict": [[[], 1]]}'],
)  # fmt: skip
def test_malformed_data_raise_what_callers_expect(text):
    with pytest.raises((ValueError, TypeError)):
        plain.decode(json.loads(text))
