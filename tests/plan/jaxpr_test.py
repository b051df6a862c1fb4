"""FLOPs of programs that a reader can count."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jssd.model import grouped
from jssd.plan import jaxpr

LAYERS, D, F, T = 12, 64, 256, 32
FORWARD = 2 * T * 2 * D * F * LAYERS
PARAMS = {
    "a": jax.ShapeDtypeStruct((LAYERS, D, F), jnp.float32),
    "b": jax.ShapeDtypeStruct((LAYERS, F, D), jnp.float32),
}
X = jax.ShapeDtypeStruct((T, D), jnp.float32)


def _layer(x, w):
    return x + jnp.tanh(x @ w["a"]) @ w["b"], None


def _loss(layer):
    return lambda params, x: (jax.lax.scan(layer, x, params)[0] ** 2).mean()


def test_the_backward_pass_is_twice_the_forward_and_remat_adds_half_of_it():
    forward = jaxpr.count(jax.jit(_loss(_layer)).trace(PARAMS, X))
    assert forward.flops == forward.device_flops == FORWARD
    plain = jaxpr.count(jax.jit(jax.grad(_loss(_layer))).trace(PARAMS, X))
    assert plain.flops == 3 * FORWARD
    # Recomputed is all but the last product of a layer, which the gradient does not need.
    remat = jaxpr.count(jax.jit(jax.grad(_loss(jax.checkpoint(_layer)))).trace(PARAMS, X))
    assert remat.flops == 3.5 * FORWARD


def test_shards_are_summed_and_a_device_does_its_own():
    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=types)
    split = jax.shard_map(
        lambda x, w: jax.lax.psum(x @ w, "tensor"),
        mesh=mesh, in_specs=(P("data", "tensor"), P("tensor")), out_specs=P("data"),
    )  # fmt: skip
    w = jax.ShapeDtypeStruct((D, F), jnp.float32)
    work = jaxpr.count(jax.jit(split).trace(X, w))
    assert (work.flops, work.device_flops) == (2 * T * D * F, 2 * T * D * F / 8)


def test_a_product_that_is_not_split_is_done_by_every_device():
    types = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=types)
    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((T, D), jnp.float32, sharding=jax.NamedSharding(mesh, P("data")))
        w = jax.ShapeDtypeStruct((D, F), jnp.float32, sharding=jax.NamedSharding(mesh, P()))
        work = jaxpr.count(jax.jit(jnp.dot).trace(x, w))
    assert (work.flops, work.device_flops) == (2 * T * D * F, 2 * T * D * F / 2)


def test_loops():
    square = lambda _, x: x @ x
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    fixed = jax.jit(lambda x: jax.lax.fori_loop(0, 5, square, x)).trace(x)
    assert jaxpr.count(fixed).flops == 5 * 2 * 8**3
    n = jax.ShapeDtypeStruct((), jnp.int32)

    def by_data(x, n):
        with jax.named_scope("rounds"):
            return jax.lax.fori_loop(0, n, square, x)

    work = jaxpr.count(jax.jit(by_data).trace(x, n), {"loss": 9, "rounds": 3})
    assert (work.flops, work.loops) == (3 * 2 * 8**3, 1)


def test_a_branch_counts_its_dearest_way():
    def either(x, flag):
        return jax.lax.cond(flag, lambda x: x @ x, lambda x: x @ x @ x, x)

    x, flag = jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool)
    assert jaxpr.count(jax.jit(either).trace(x, flag)).flops == 2 * 2 * 8**3


def test_ragged_products_do_not_depend_on_the_groups():
    left, right = jax.ShapeDtypeStruct((64, 32), jnp.float32), (4, 32, 16)
    right, sizes = jax.ShapeDtypeStruct(right, jnp.float32), jax.ShapeDtypeStruct((4,), jnp.int32)
    loss = lambda a, b, sizes: jax.lax.ragged_dot(a, b, sizes).sum()
    traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(left, right, sizes)
    assert jaxpr.count(traced).flops == 3 * 2 * 64 * 32 * 16


@pytest.mark.parametrize("fused", [True, False])
def test_splash_attention_counts_the_blocks_down_to_the_diagonal(fused):
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    N, S, H, block = 8, 1024, 128, 256
    apart = None if fused else block
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block,
        block_kv_dkv=block, block_kv_dkv_compute=block, block_q_dq=apart, block_kv_dq=apart,
        use_fused_bwd_kernel=fused,
    )  # fmt: skip
    mask = splash.MultiHeadMask([splash.CausalMask((S, S)) for _ in range(N)])
    kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    x = jax.ShapeDtypeStruct((N, S, H), jnp.bfloat16)

    def total(q, k, v):
        return jnp.sum(jnp.asarray(kernel(q, k, v), jnp.float32))

    grads = jax.grad(total, (0, 1, 2))
    work = jaxpr.count(jax.jit(grads).trace(x, x, x))
    matmuls = sum(work.kernels.values()) / (2 * N * block * block * H * 10)  # 4 + 3 + 2 + 1.
    assert matmuls == (7 if fused else 9) and not work.unread  # Backward: 5, or 3 and 4.


def test_a_kernel_of_as_many_turns_as_data_say_counts_what_it_says_of_itself():
    counts = jnp.array([30, 34], jnp.int32)
    call = lambda rows, dout: grouped.outer_products(rows, dout, counts, jnp.float32)
    work = jaxpr.count(jax.jit(call).trace(jnp.ones((64, 8)), jnp.ones((64, 6))))
    assert work.flops == 2 * 64 * 8 * 6 and not work.unread


def test_the_largest_arrays_are_those_of_one_device():
    types = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=types)
    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((T, D), jnp.float32, sharding=jax.NamedSharding(mesh, P("data")))
        w = jax.ShapeDtypeStruct((D, F), jnp.float32, sharding=jax.NamedSharding(mesh, P()))
        [first, *_] = jaxpr.largest(jax.jit(lambda x, w: jnp.tanh(x @ w)).trace(x, w))
    assert first["shape"] == [T // 8, F] and first["bytes"] == T // 8 * F * 4
    assert first["where"] == "dot_general"
