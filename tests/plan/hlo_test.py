"""Collectives read from real HLO of small sharded programs on eight CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jssd.plan import hlo, hlo_text

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
    assert hlo_text.arrays("bf16[2,3]{1,0:T(8,128)(2,1)}") == [("bf16", 12)]
    assert hlo_text.arrays("(f32[4]{0}, /*index=1*/s32[], pred[8])") == [
        ("f32", 16), ("s32", 4), ("pred", 8),
    ]  # fmt: skip
    assert hlo_text.arrays("s4[6]") == [("s4", 3)]


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


# Of libtpu 0.0.42 for TPU7x, shortened: sums and scatters run on the SparseCore, beside the rest.
SPARSE_CORE = """
%called_computation.6 (param_0.1: bf16[9728,2560], param_1.2: token[]) -> bf16[9728,2560] {
  %param_1.2 = token[] parameter(1)
  %param_0.1 = bf16[9728,2560]{1,0:T(8,128)(2,1)} parameter(0), backend_config={"flag_configs":[]}
  ROOT %all-reduce.79 = bf16[9728,2560]{1,0:T(8,128)(2,1)} all-reduce(%param_0.1), channel_id=1, \
replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add.clone
}, execution_thread="sparsecore"

%body.1 (wide.param.1: (s32[], bf16[9728,2560])) -> (s32[], bf16[9728,2560]) {
  %wide.param.1 = (s32[]{:T(128)}, bf16[9728,2560]{1,0:T(8,128)(2,1)}) parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%wide.param.1), index=0
  %get-tuple-element.2 = bf16[9728,2560]{1,0:T(8,128)(2,1)} \
get-tuple-element(%wide.param.1), index=1
  %prepare_start = s32[]{:S(2)} custom-call(), custom_call_target="PrepareAsyncCallStart"
  %prepare_done = token[] custom-call(%prepare_start), custom_call_target="PrepareAsyncCallDone"
  %all-reduce.88.cloned.1.call-start = ((bf16[9728,2560]{1,0:T(8,128)(2,1)}, token[]), \
bf16[9728,2560]{1,0:T(8,128)(2,1)}) call-start(%get-tuple-element.2, %prepare_done), \
async_execution_thread="sparsecore", to_apply=%called_computation.6, \
metadata={op_name="jit(add)/mlp/dot_general" stack_frame_id=7}
  %all-reduce.88.cloned.1.call-done = bf16[9728,2560]{1,0:T(8,128)(2,1)} \
call-done(%all-reduce.88.cloned.1.call-start)
  %add.5 = s32[]{:T(128)} add(%get-tuple-element.1, %one)
  ROOT %tuple.9 = (s32[]{:T(128)}, bf16[9728,2560]{1,0:T(8,128)(2,1)}) \
tuple(%add.5, %all-reduce.88.cloned.1.call-done)
}

%condition.1 (wide.param.2: (s32[], bf16[9728,2560])) -> pred[] {
  %wide.param.2 = (s32[]{:T(128)}, bf16[9728,2560]{1,0:T(8,128)(2,1)}) parameter(0)
  %constant.36 = s32[]{:T(128)} constant(36)
  %get-tuple-element.3 = s32[]{:T(128)} get-tuple-element(%wide.param.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.3, %constant.36), direction=LT
}

ENTRY %main (x: bf16[9728,2560]) -> (s32[], bf16[9728,2560]) {
  %x = bf16[9728,2560]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %tuple.1 = (s32[]{:T(128)}, bf16[9728,2560]{1,0:T(8,128)(2,1)}) tuple(%zero, %x)
  ROOT %while.1 = (s32[]{:T(128)}, bf16[9728,2560]{1,0:T(8,128)(2,1)}) while(%tuple.1), \
condition=%condition.1, body=%body.1
}
"""


def test_what_a_sparse_core_sums_is_counted_once_a_turn():
    program = hlo.Program(SPARSE_CORE, 8)
    [one] = program.collectives()
    assert (one.kind, one.times, program.untold) == ("all-reduce", 36, [])
    assert one.bytes == 2 * 9728 * 2560 * 2 * 3 / 4
    assert one.where == "jit(add)/mlp/dot_general"
    assert hlo.varying_axes(one.groups, MESH) == ("fsdp",)
