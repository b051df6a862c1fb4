"""The same forward pass and gradients on any mesh of eight devices, and meshes that do not fit.

Loss and train steps on meshes are in tests/train/sharded_test.py.
"""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import hosts, sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.model.config import ModelConfig, Rope
from tests.model import conftest

# Every kind of leaf there is: biases on all projections, and norms on queries and keys.
FULL = ModelConfig(
    family="qwen3",
    vocab_size=64,
    embed_dim=16,
    mlp_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    max_seq_len=64,
    norm_eps=1e-6,
    rope=Rope(10000.0),
    tied_head=False,
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    qk_norm=True,
)
TIED = dataclasses.replace(FULL, tied_head=True, qkv_bias=False, o_bias=False, mlp_bias=False)


def _mesh(*sizes):
    return sharding.make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])


def _forward_and_gradients(cfg, params, tokens_BT, segment_ids_BT):
    def value(params):
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        logits_BTV = transformer.apply(params, cfg, tokens_BT, positions_BT, segment_ids_BT)
        return jnp.mean(jnp.sin(logits_BTV)), logits_BTV

    (_, logits_BTV), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    return logits_BTV, grads


@pytest.mark.parametrize(
    ("cfg", "meshes"),
    [(FULL, ((1, 8, 1), (2, 2, 2), (1, 4, 2))), (TIED, ((1, 1, 1), (1, 4, 2)))],
    ids=["untied", "tied"],
)
def test_forward_and_gradients_do_not_depend_on_the_mesh(cfg, meshes):
    params = jax.tree.map(np.asarray, transformer.init_params(cfg, jax.random.key(0)))
    # Larger than at the start of training, so that every weight is felt.
    params = jax.tree.map(lambda leaf: leaf * 5, params)
    tokens_BT = np.random.default_rng(0).integers(0, cfg.vocab_size, (8, 12)).astype(np.int32)
    segment_ids_BT = np.repeat([1, 2, 0], (5, 5, 2)).astype(np.int32)[None].repeat(8, axis=0)
    wanted = _forward_and_gradients(cfg, params, tokens_BT, segment_ids_BT)
    for sizes in meshes:
        with jax.set_mesh(_mesh(*sizes)):
            like = transformer.abstract_params(cfg)
            placed = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), params, like)
            place = lambda x: jax.device_put(x, sharding.sharding("batch", None))
            logits, grads = _forward_and_gradients(
                cfg, placed, place(tokens_BT), place(segment_ids_BT)
            )
            wanted_sharding = sharding.sharding("batch", "seq", "vocab")
            assert logits.sharding.is_equivalent_to(wanted_sharding, 3)
        jax.tree.map(_assert_close, (logits, grads), wanted)


def _assert_close(ours, wanted):
    """Within 1e-4 of the largest number of the array."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_random_weights_do_not_depend_on_the_mesh():
    wanted = transformer.init_params(FULL, jax.random.key(1))
    with jax.set_mesh(_mesh(2, 2, 2)):
        ours = transformer.init_params(FULL, jax.random.key(1))
        like = transformer.abstract_params(FULL)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, wanted)
    same = lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert all(jax.tree.leaves(jax.tree.map(same, ours, like)))


@pytest.mark.parametrize(
    ("cfg", "sizes", "padded"),
    [(TIED, (1, 4, 2), 98), (FULL, (1, 2, 4), 100)],
    ids=["tied", "untied"],
)
def test_a_vocabulary_that_the_mesh_does_not_divide_is_padded_with_what_is_never_drawn(
    cfg, sizes, padded
):
    cfg = dataclasses.replace(cfg, vocab_size=97, num_kv_heads=4)
    one = transformer.init_params(cfg, jax.random.key(1))
    tokens_BT = np.random.default_rng(0).integers(0, 97, (8, 12)).astype(np.int32)
    apply = jax.jit(transformer.apply, static_argnums=1, compiler_options=conftest.QUICK)
    wanted = apply(one, cfg, tokens_BT)
    with jax.set_mesh(_mesh(*sizes)):
        params = transformer.init_params(cfg, jax.random.key(1))
        placed = jax.device_put(tokens_BT, sharding.sharding("batch", None))
        logits_BTV = np.asarray(apply(params, cfg, placed))
    assert params["embed"].shape == (padded, cfg.embed_dim)
    jax.tree.map(_assert_close, conftest.cut(params, one), one)
    _assert_close(logits_BTV[..., :97], wanted)
    assert (logits_BTV[..., 97:] == -np.inf).all()


def test_weights_are_split_and_not_copied():
    with jax.set_mesh(_mesh(1, 4, 2)):
        params = transformer.init_params(FULL, jax.random.key(0), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    for leaf in (params["embed"], params["head"], *jax.tree.leaves(params["blocks"]["mlp"])):
        if leaf.ndim > 2 or leaf.shape[0] != FULL.num_layers:  # Biases and norms are small.
            assert leaf.addressable_shards[0].data.size == leaf.size // 8


def test_a_mesh_that_does_not_divide_the_model_is_refused_with_every_reason():
    cfg = dataclasses.replace(FULL, num_kv_heads=1, mlp_dim=31, embed_dim=18)
    with jax.set_mesh(_mesh(1, 4, 2)), pytest.raises(ValueError) as caught:
        transformer.init_params(cfg, jax.random.key(0))
    assert str(caught.value) == (
        "num_kv_heads=1 must be a multiple of mesh tensor=2; mlp_dim=31 must be a multiple of mesh "
        "tensor=2; embed_dim=18 must be a multiple of mesh fsdp=4. "
        "Choose a mesh whose axes divide these sizes."
    )
    transformer.abstract_params(cfg)  # Without a mesh nothing has to divide.


def test_one_size_of_the_mesh_may_be_left_open():
    assert dict(sharding.make_mesh(MeshConfig(1, -1, 2)).shape) == {
        "fsdp": 4,
        "tensor": 2,
    }
    assert dict(_mesh(1, 1, 1).shape) == {"data": 1}


@pytest.mark.parametrize("sizes", [(1, 1, 3), (-1, 3, 1), (2, 2, 1)])
def test_a_mesh_that_misses_the_devices_is_refused(sizes):
    with pytest.raises(ValueError, match=r"must multiply to the 8 devices present\. Set one"):
        sharding.make_mesh(MeshConfig(*sizes))


def test_specs_are_looked_up_strictly_and_name_only_axes_of_the_mesh():
    assert sharding.spec("batch", None, "mlp") is None  # No mesh.
    with jax.set_mesh(_mesh(1, 4, 2)):
        assert sharding.spec("batch", None, "mlp") == jax.P("fsdp", None, "tensor")
        assert sharding.spec("layers", "embed", "heads") == jax.P(None, "fsdp", "tensor")
    with jax.set_mesh(_mesh(1, 2, 1, 2, 2)):
        assert sharding.spec("batch", "seq") == jax.P(("fsdp", "expert"), "context")
        assert sharding.spec("embed") == jax.P(("fsdp", "expert", "context"))
        assert sharding.spec("experts", "expert_embed") == jax.P("expert", ("fsdp", "context"))
    with pytest.raises(KeyError, match="head"):
        sharding.spec("head")


@pytest.mark.parametrize("names", [("embed", "experts"), ("batch", "embed"), ("heads", "mlp")])
def test_an_array_cannot_be_split_over_one_mesh_axis_twice(names):
    with (
        jax.set_mesh(_mesh(1, 2, 2, 2)),
        pytest.raises(ValueError, match=r"lies twice on mesh axis (expert|fsdp|tensor)"),
    ):
        sharding.spec(*names)


def test_the_pieces_of_a_row_are_shared_out_evenly():
    order = sharding.balanced_order(12, 3)
    assert order.tolist() == [0, 1, 10, 11, 2, 3, 8, 9, 4, 5, 6, 7]
    assert sharding.balanced_order(6, 1).tolist() == list(range(6))


def test_the_decode_mesh_keeps_devices_and_folds_all_but_tensor_and_expert_into_data():
    mesh = _mesh(2, 2, 2)
    decode = hosts.decode_mesh(mesh)
    assert dict(decode.shape) == {"data": 4, "expert": 1, "tensor": 2}
    assert decode.devices.ravel().tolist() == mesh.devices.ravel().tolist()
    with jax.set_mesh(decode):
        assert sharding.spec("batch", "embed") is None
    mesh = _mesh(1, 1, 2, 2, 2)  # Tensor, expert, context.
    decode = hosts.decode_mesh(mesh)
    assert dict(decode.shape) == {"data": 2, "expert": 2, "tensor": 2}
    assert decode.devices[1, 0, 1] == mesh.devices[1, 0, 1]
    with jax.set_mesh(decode):
        embed, experts = sharding.sharding("vocab", "embed"), sharding.sharding("experts", "mlp")
    assert embed is not None and embed.spec == jax.P("tensor", None)
    assert experts is not None and experts.spec == jax.P("expert", "tensor")


def test_each_host_decodes_with_its_own_devices_however_training_spreads_expert():
    mesh = _devices_of_hosts(_mesh(1, 1, 1, 4, 2), per_host=4)
    assert {device.process_index for device in mesh.devices[:, 0]} == {0, 1}
    everywhere = hosts.decode_mesh(mesh)
    assert dict(everywhere.shape) == {"data": 2, "expert": 4, "tensor": 1}
    for host in (0, 1):
        own = hosts.decode_mesh(mesh, host)
        assert dict(own.shape) == {"data": 1, "expert": 4, "tensor": 1}
        # As they lie for all: weights go there, and each host keeps its part.
        assert own.devices.ravel().tolist() == everywhere.devices[host].ravel().tolist()
        assert {device.process_index for device in own.devices.flat} == {host}
    both = hosts.decode_mesh(_devices_of_hosts(_mesh(1, 1, 2, 2, 2), per_host=4), 1)
    assert dict(both.shape) == {"data": 1, "expert": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "per_host", "expert"),
    [
        ((1, 1, 1, 8), 4, 4),  # Training splits experts over two hosts, a host over its devices.
        ((1, 1, 4, 2), 4, 1),  # Tensor fills a host.
        ((1, 1, 2, 4), 4, 2),
        ((1, 1, 1, 8), 2, 2),
    ],
)
def test_a_host_takes_of_expert_what_its_devices_leave(sizes, per_host, expert):
    mesh = _devices_of_hosts(_mesh(*sizes), per_host)
    own = hosts.decode_mesh(mesh, 1)
    assert own.shape["expert"] == expert == hosts.expert_size(mesh)
    assert own.shape["tensor"] == sizes[2] and own.size == per_host
    assert {device.process_index for device in own.devices.flat} == {1}
    assert f"over {expert} devices, not over mesh.expert={sizes[3]}" in hosts.note(mesh)
    assert hosts.note(_mesh(*sizes)) == ""  # One host has all that training has.


def test_a_host_too_small_for_tensor_is_refused():
    mesh = _devices_of_hosts(_mesh(1, 1, 8), per_host=4)
    message = r"mesh.tensor=8 must divide the 4 devices of a host.*Set mesh.tensor=4"
    with pytest.raises(ValueError, match=message):
        hosts.decode_mesh(mesh, 0)


@dataclasses.dataclass(frozen=True)
class _Device:
    id: int
    process_index: int


def _devices_of_hosts(mesh, per_host) -> Any:
    """A mesh of stand-ins for its devices, so many to a host."""
    stand_in = lambda device: _Device(device.id, device.id // per_host)
    return types.SimpleNamespace(
        shape=mesh.shape, axis_names=mesh.axis_names,
        devices=np.vectorize(stand_in, otypes=[object])(mesh.devices),
    )  # fmt: skip
