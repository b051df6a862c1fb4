"""Collectives read from real HLO of small sharded programs on eight CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jssd.plan import hlo

MESH = {"data": 2, "fsdp": 4}
TURNS, WIDTH = 5, 64


@pytest.fixture(scope="module")
def mesh():
    types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=types)


def _collectives(function, mesh, *shapes_and_specs, turns=None):
    args = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in shapes_and_specs
    ]
    text = jax.jit(function).lower(*args).compile().as_text()
    assert text is not None
    program = hlo.Program(text, 8, turns)
    return program.collectives(), program


def _over(mesh, function, in_specs, out_specs):
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def test_a_gather_in_a_loop_counts_every_turn(mesh):
    def local(x, w):
        def turn(x, w):
            return jnp.tanh(x @ jax.lax.all_gather(w, "fsdp", tiled=True)), None

        return jax.lax.scan(turn, x, w)[0]

    program = _over(mesh, local, (P(("data", "fsdp")), P(None, "fsdp")), P(("data", "fsdp")))
    found, parsed = _collectives(
        program, mesh, ((8, WIDTH), P(("data", "fsdp"))), ((TURNS, WIDTH, WIDTH), P(None, "fsdp"))
    )
    [gather] = [one for one in found if one.kind == "all-gather"]
    assert gather.times == TURNS and not parsed.untold
    # A device has a quarter of the weight and sends it to the three others.
    assert gather.bytes == 3 * WIDTH * WIDTH / 4 * 4
    assert hlo.varying_axes(gather.groups, MESH) == ("fsdp",)
    assert gather.dtypes == ("f32",)
    assert hlo.by_axes(found, MESH)["fsdp"]["all-gather"] == TURNS * gather.bytes


@pytest.mark.parametrize(
    ("axes", "devices"), [(("data",), 2), (("fsdp",), 4), (("data", "fsdp"), 8)]
)
def test_a_sum_sends_twice_what_a_ring_scatters(mesh, axes, devices):
    found, _ = _collectives(
        _over(mesh, lambda x: jax.lax.psum(x, axes), P(), P()), mesh, ((WIDTH, WIDTH), P())
    )
    [one] = found
    assert one.kind == "all-reduce" and hlo.varying_axes(one.groups, MESH) == axes
    assert one.bytes == 2 * WIDTH * WIDTH * 4 * (devices - 1) / devices


def test_permutations_and_exchanges(mesh):
    def local(x):
        x = jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % 4) for i in range(4)])
        return jax.lax.all_to_all(x, "data", 0, 0, tiled=True)

    found, _ = _collectives(_over(mesh, local, P(), P()), mesh, ((WIDTH, WIDTH), P()))
    sent = {one.kind: (one.bytes, hlo.varying_axes(one.groups, MESH)) for one in found}
    size = WIDTH * WIDTH * 4
    assert sent["collective-permute"] == (size, ("fsdp",))
    assert sent["all-to-all"] == (size / 2, ("data",))


def test_a_loop_that_data_ends_is_named_and_takes_the_turns_given(mesh):
    def local(x):
        def turn(x):
            return jax.lax.psum(jnp.sin(x), "data") / 2

        with jax.named_scope("halving"):
            return jax.lax.while_loop(lambda x: x.sum() > 1.0, turn, x)

    found, program = _collectives(
        _over(mesh, local, P(), P()), mesh, ((WIDTH, WIDTH), P()), turns={"loss": 3, "halving": 7}
    )
    assert [one.times for one in found if one.kind == "all-reduce"] == [7]
    assert len(program.untold) == 1 and "while" in program.untold[0]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, use", ((0, 1), (2, 3))),
        ("replica_groups=[2,4]<=[4,2]T(1,0), x", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("replica_groups=[4,2]<=[8], x", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}, x", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2] {'a','c'}, x", (tuple(range(8)),)),
        (
            "replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}, x",
            ((0, 2, 4, 6), (1, 3, 5, 7)),
        ),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}, x", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("replica_groups={}, x", (tuple(range(8)),)),
    ],
)
def test_every_notation_of_groups(text, groups):
    assert hlo.replica_groups(text, 8) == groups


def test_bytes_of_types():
    assert hlo.num_bytes("bf16[2,3]{1,0:T(8,128)(2,1)}") == 12
    assert hlo.num_bytes("(f32[4]{0}, /*index=1*/s32[], pred[8])") == 28
    assert hlo.num_bytes("s4[6]") == 3


def test_axes_of_groups_in_a_mesh_of_five():
    mesh = {"data": 1, "fsdp": 4, "tensor": 2, "expert": 1, "context": 1}
    devices = np.arange(8).reshape(4, 2)
    assert hlo.varying_axes(tuple(map(tuple, devices.tolist())), mesh) == ("tensor",)
    assert hlo.varying_axes(tuple(map(tuple, devices.T.tolist())), mesh) == ("fsdp",)
    assert hlo.varying_axes((tuple(range(8)),), mesh) == ("fsdp", "tensor")


def test_what_goes_from_slice_to_slice_over_the_hosts():
    text = """
ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %t = token[] after-all()
  %send.1 = (f32[4,8]{1,0}, u32[], token[]) send(%x, %t), channel_id=4, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""
    [one] = hlo.Program(text, 8, slices=2).collectives()
    assert one.kind == "all-reduce" and one.bytes == 4 * 8 * 4
    assert one.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert hlo.varying_axes(one.groups, MESH) == ("data",)
