"""Turns of loops in HLO texts that a reader can count."""

import jax
import jax.numpy as jnp
import pytest

from jssd.plan import hlo_text, trips

LOOP = """
%added (a: u32[], b: u32[]) -> u32[] {{
  %a = u32[] parameter(0)
  %b = u32[] parameter(1)
  ROOT %sum = u32[] add(%a, %b)
}}

%body (p: (u32[], f32[4], u32[])) -> (u32[], f32[4], u32[]) {{
  %p = (u32[], f32[4]{{0}}, u32[]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[4]{{0}} get-tuple-element(%p), index=1
  %n = u32[] get-tuple-element(%p), index=2
  %step = u32[] constant({step})
  %next = u32[] {next}
  ROOT %out = (u32[], f32[4]{{0}}, u32[]) tuple(%next, %x, %n)
}}

%condition (q: (u32[], f32[4], u32[])) -> pred[] {{
  %q = (u32[], f32[4]{{0}}, u32[]) parameter(0)
  %j = u32[] get-tuple-element(%q), index=0
  %bound = u32[] {bound}
  ROOT %more = pred[] compare({compared}), direction={direction}
}}

ENTRY %main (x: f32[4], m: u32[]) -> (u32[], f32[4], u32[]) {{
  %x0 = f32[4]{{0}} parameter(0)
  %m = u32[] parameter(1)
  %first = u32[] constant({first})
  %limit = u32[] {limit}
  %given = (u32[], f32[4]{{0}}, u32[]) tuple(%first, %x0, %limit)
  ROOT %loop = (u32[], f32[4]{{0}}, u32[]) while(%given), condition=%condition, body=%body{known}
}}
"""
CARRIED = "get-tuple-element(%q), index=2"


def _turns(**changes):
    parts = {
        "first": 0, "bound": "constant(8)", "step": 1, "direction": "LT", "compared": "%j, %bound",
        "next": "add(%i, %step)", "limit": "constant(8)", "known": "",
    } | changes  # fmt: skip
    computations, entry = hlo_text.parse(LOOP.format(**parts))
    [loop] = [one for one in computations[entry] if one.opcode == "while"]
    return trips.trip_count(computations, entry, loop)


@pytest.mark.parametrize(
    ("changes", "turns"),
    [
        ({}, 8),
        ({"step": 2}, 4),  # A product whose operand comes in from both sides.
        ({"step": 3}, 3),
        ({"first": 5}, 3),
        ({"first": 9}, 0),
        ({"direction": "LE"}, 9),
        ({"direction": "LE", "step": 2}, 5),
        ({"direction": "NE", "step": 4}, 2),
        ({"direction": "NE", "step": 3}, None),  # Steps over it.
        ({"compared": "%bound, %j", "direction": "GT", "step": 2}, 4),
        ({"first": 8, "bound": "constant(0)", "step": -1, "direction": "GT"}, 8),
        ({"first": 8, "bound": "constant(0)", "direction": "GE", "next": "subtract(%i, %step)"}, 9),
        ({"first": 8, "bound": "constant(0)", "direction": "GT"}, None),  # Runs away from it.
        ({"next": "add(%step, %i)"}, 8),
        ({"next": "fusion(%i, %step), kind=kLoop, calls=%added", "step": 2}, 4),
        ({"next": "copy(%i)"}, None),
        ({"next": "multiply(%i, %step)", "step": 2}, None),
        ({"bound": CARRIED}, 8),
        ({"bound": CARRIED, "limit": "constant(12)"}, 12),
        ({"bound": CARRIED, "limit": "copy(%m)"}, None),  # As many as there are data.
        ({"bound": CARRIED, "known": ', backend_config={"known_trip_count":{"n":"7"}}'}, 7),
    ],
)  # fmt: skip
def test_turns_follow_from_counter_bound_and_step(changes, turns):
    assert _turns(**changes) == turns


def test_loops_of_a_real_compiler():
    def function(x):
        x = jax.lax.fori_loop(3, 10, lambda i, x: jnp.sin(x) + i, x)
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    text = jax.jit(function).lower(jnp.ones(4)).compile().as_text()
    assert text is not None
    # Without what the compiler wrote beside them, too.
    for shown in (text, text.replace("known_trip_count", "unknown")):
        computations, _ = hlo_text.parse(shown)
        found = [
            trips.trip_count(computations, name, one)
            for name, lines in computations.items()
            for one in lines
            if one.opcode == "while"
        ]
        assert sorted(found, key=str) == [7, None]
