"""The loss equals its definition in value and gradient, and never holds a batch of logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex

from jssd.train import loss

V, D = 40, 8


def _batch(rows=3, length=17, share=0.4, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    mask = (rng.random((rows, length)) < share).astype(np.float32)
    support = np.full((rows, length, 6), -1, np.int32)
    for row in range(rows):
        for time in range(length):
            size = rng.integers(1, 7)
            support[row, time, :size] = rng.choice(V, size, replace=False)
    support[rng.random((rows, length)) < 0.2, 0] = loss.UNKNOWN_SUPPORT
    return {
        "x": jnp.asarray(rng.normal(size=(rows, length, D)), dtype),
        "head": jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
        "targets": jnp.asarray(rng.integers(0, V, (rows, length)), jnp.int32),
        "mask": jnp.asarray(mask),
        "support": jnp.asarray(support),
    }


def _ours(x, head, batch, chunk=4):
    return loss.response_loss(
        x, head, batch["targets"], batch["mask"], batch["support"], chunk=chunk
    )


def _plain(x, head, batch):
    logits = jnp.einsum("BTD,DV->BTV", x, head.astype(x.dtype), preferred_element_type=jnp.float32)
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, batch["targets"][..., None], axis=-1)[..., 0]
    return -(picked * batch["mask"]).sum()


def test_token_nll_of_a_row_a_reader_can_check():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]))
    nll = loss.token_nll(logits, jnp.array([0, 2]))
    np.testing.assert_allclose(nll, np.log([2.0, 8.0]), rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 4, 16, 51, 1000])
def test_value_and_gradients_equal_the_definition(chunk):
    batch = _batch()
    value, grads = jax.value_and_grad(lambda x, h: _ours(x, h, batch, chunk).nll, (0, 1))(
        batch["x"], batch["head"]
    )
    wanted, wanted_grads = jax.value_and_grad(lambda x, h: _plain(x, h, batch), (0, 1))(
        batch["x"], batch["head"]
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    for ours, plain in zip(grads, wanted_grads):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_value_without_gradient_is_the_same():
    batch = _batch()
    np.testing.assert_array_equal(
        _ours(batch["x"], batch["head"], batch),
        jax.value_and_grad(
            lambda x: (lambda s: (s.nll, s))(_ours(x, batch["head"], batch)), has_aux=True
        )(batch["x"])[0][1],
    )


def test_cotangent_scales_the_gradient():
    batch = _batch()
    one, half = (
        jax.grad(lambda h, k=k: k * _ours(batch["x"], h, batch).nll)(batch["head"])
        for k in (1.0, 0.5)
    )
    np.testing.assert_array_equal(half, one * 0.5)


def test_bfloat16_hidden_states_with_float32_head():
    batch = _batch(rows=2, length=64, share=0.7, dtype=jnp.bfloat16)
    value, (dx, dhead) = jax.value_and_grad(lambda x, h: _ours(x, h, batch).nll, (0, 1))(
        batch["x"], batch["head"]
    )
    # The reference computes in float32 from the same rounded inputs.
    rounded = batch["head"].astype(jnp.bfloat16).astype(jnp.float32)
    wanted, (wanted_dx, wanted_dhead) = jax.value_and_grad(
        lambda x, h: _plain(x, h, batch), (0, 1)
    )(batch["x"].astype(jnp.float32), rounded)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert dx.dtype == jnp.bfloat16 and dhead.dtype == jnp.float32
    np.testing.assert_allclose(dx.astype(jnp.float32), wanted_dx, rtol=2e-2, atol=3e-2)
    np.testing.assert_allclose(dhead, wanted_dhead, rtol=2e-2, atol=3e-2)


def test_head_gradient_is_accumulated_in_float32():
    # 4096 equal terms: a bfloat16 running sum would stop growing after 256 of them.
    length = 4096
    x = jnp.ones((1, length, 1), jnp.bfloat16)
    support = jnp.full((1, length, 1), loss.UNKNOWN_SUPPORT)
    grad = jax.grad(
        lambda h: (
            loss.response_loss(
                x, h, jnp.zeros((1, length), jnp.int32), jnp.ones((1, length)), support, chunk=1
            ).nll
        )
    )(jnp.zeros((1, 2), jnp.bfloat16))
    np.testing.assert_array_equal(grad.astype(jnp.float32), [[-2048.0, 2048.0]])


def test_kept_mass_of_a_distribution_a_reader_can_check():
    head = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    x = jnp.ones((1, 4, 1))
    support = jnp.array([[[0, -1], [0, 1], [loss.UNKNOWN_SUPPORT, -1], [2, 3]]])
    mask = jnp.array([[1.0, 1.0, 1.0, 0.0]])
    sums = loss.response_loss(x, head, jnp.zeros((1, 4), jnp.int32), mask, support, chunk=2)
    np.testing.assert_allclose(sums.kept_mass, 0.5 + 0.8, rtol=1e-6)
    np.testing.assert_allclose(sums.log_kept_mass, np.log(0.5) + np.log(0.8), rtol=1e-6)
    assert (sums.tokens, sums.supported_tokens, sums.unsupported_tokens) == (3, 2, 1)


def test_loss_is_gate_plus_loss_within_the_support():
    # The paper's gate: CE = -log KeptMass + CE(q, c), here for one drawn token.
    head = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    sums = loss.response_loss(
        jnp.ones((1, 1, 1)),
        head,
        jnp.array([[1]]),
        jnp.ones((1, 1)),
        jnp.array([[[0, 1]]]),
        chunk=1,
    )
    np.testing.assert_allclose(sums.nll, -sums.log_kept_mass - np.log(0.3 / 0.8), rtol=1e-6)


def test_a_batch_without_response_tokens_is_zero_with_zero_gradient():
    batch = _batch(share=0.0)
    sums, grads = jax.value_and_grad(
        lambda x, h: (lambda s: (s.nll, s))(_ours(x, h, batch)), (0, 1), has_aux=True
    )(batch["x"], batch["head"])
    assert all(value == 0 for value in sums[1])
    assert all((grad == 0).all() for grad in grads)


def test_positions_outside_the_mask_have_no_influence():
    batch = _batch()
    poisoned = jnp.where(batch["mask"][..., None] > 0, batch["x"], jnp.nan)
    dx = jax.grad(lambda x: _ours(x, batch["head"], batch).nll)(poisoned)
    assert jnp.isfinite(dx).all()
    assert (dx[batch["mask"] == 0] == 0).all()


def _memory(length, *, chunk, vocab, share=1.0):
    """Temporary bytes of value and gradients, compiled for one row of `length` tokens."""
    shapes = [
        jax.ShapeDtypeStruct((1, length, D), jnp.float32),
        jax.ShapeDtypeStruct((D, vocab), jnp.float32),
        jax.ShapeDtypeStruct((1, length), jnp.int32),
        jax.ShapeDtypeStruct((1, length), jnp.float32),
        jax.ShapeDtypeStruct((1, length, 1), jnp.int32),
    ]

    def value(x, head, targets, mask, support):
        return loss.response_loss(x, head, targets, mask, support, chunk=chunk).nll

    compiled = jax.jit(jax.value_and_grad(value, (0, 1))).lower(*shapes).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_follows_the_chunk_and_not_the_tokens():
    vocab, chunk = 8192, 64
    chunk_logits = 4 * chunk * vocab
    small, large = (_memory(length, chunk=chunk, vocab=vocab) for length in (1024, 8192))
    # 8192 tokens of float32 logits would be 256 MiB; a chunk of them is 2 MiB.
    assert large < 4 * chunk_logits
    # What grows with the tokens is order and hidden gradient, far from a row of logits.
    assert (large - small) / (8192 - 1024) < 40 * D
    assert _memory(8192, chunk=4 * chunk, vocab=vocab) > large + chunk_logits


def test_no_array_of_the_program_has_tokens_by_vocabulary():
    length, vocab = 512, 1024
    batch = _batch(rows=1, length=length)
    head = jnp.zeros((D, vocab))
    jaxpr = jax.make_jaxpr(jax.grad(lambda x, h: _ours(x, h, batch, 32).nll, (0, 1)))(
        batch["x"], head
    )
    sizes = [
        var.aval.size
        for eqn in _all_equations(jaxpr.jaxpr)
        for var in eqn.outvars
        if var.aval.shape
    ]
    assert max(sizes) == 32 * vocab


def _all_equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in jex.jaxprs_in_params(eqn.params):
            yield from _all_equations(sub)


def test_strict_dtype_promotion_holds():
    batch = _batch(dtype=jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.grad(lambda x, h: _ours(x, h, batch).nll, (0, 1))(batch["x"], batch["head"])


def _laws(batch, seed=1):
    """Random laws on the recorded supports, float32 [B, T, U]."""
    weights = np.random.default_rng(seed).random(batch["support"].shape)
    weights = np.where(np.asarray(batch["support"]) >= 0, weights, 0)
    return jnp.asarray(weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9), jnp.float32)


def _soft(x, head, batch, probs):
    return loss.response_loss(
        x, head, batch["targets"], batch["mask"], batch["support"], probs, chunk=4
    )


def test_soft_targets_are_the_expectation_of_draws():
    # Token by token: the loss and its gradients are the sum over candidates of probability times
    # the loss and the gradients of that draw. Tokens without a known law are trained on the draw.
    batch = _batch()
    probs = _laws(batch)
    value, grads = jax.value_and_grad(lambda x, h: _soft(x, h, batch, probs).nll, (0, 1))(
        batch["x"], batch["head"]
    )

    def expected(x, head):
        log_probs = jax.nn.log_softmax(jnp.einsum("BTD,DV->BTV", x, head))
        draw = lambda ids: -jnp.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]
        known = batch["support"][..., 0] >= 0
        by_candidate = [
            probs[..., u] * draw(jnp.maximum(batch["support"][..., u], 0))
            for u in range(probs.shape[-1])
        ]
        nll = jnp.where(known, sum(by_candidate), draw(batch["targets"]))
        return (nll * batch["mask"]).sum()

    wanted, wanted_grads = jax.value_and_grad(expected, (0, 1))(batch["x"], batch["head"])
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    for ours, plain in zip(grads, wanted_grads):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_soft_targets_of_one_candidate_are_the_draw():
    batch = _batch()
    ids = jnp.where(jnp.arange(6) == 0, batch["targets"][..., None], -1).astype(jnp.int32)
    batch |= {"support": ids}
    probs = jnp.where(jnp.arange(6) == 0, 1.0, 0.0) * jnp.ones(ids.shape)
    one, other = (
        jax.value_and_grad(lambda x, h, f=f: f(x, h).nll, (0, 1))(batch["x"], batch["head"])
        for f in (
            lambda x, h: _soft(x, h, batch, probs),
            lambda x, h: _ours(x, h, batch),
        )
    )
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    for soft, drawn in zip(one[1], other[1]):
        np.testing.assert_allclose(soft, drawn, rtol=1e-6, atol=1e-7)


def test_soft_targets_have_the_mean_of_the_draws_gradients_and_none_of_their_variance():
    batch = _batch(rows=1, length=5, share=1.0)
    ids = jnp.maximum(batch["support"], jnp.where(jnp.arange(6) == 0, 0, -1))  # All are known.
    batch |= {"support": ids}
    probs = _laws(batch)
    keys = jax.random.split(jax.random.key(0), 1000)
    place = lambda key: jax.random.categorical(key, jnp.log(probs))
    drawn = jax.vmap(lambda key: jnp.take_along_axis(ids, place(key)[..., None], -1)[..., 0])(keys)

    def gradient(targets, laws):
        one = batch | {"targets": targets}
        loss_of = _ours if laws is None else lambda x, head, one: _soft(x, head, one, laws)
        return jax.grad(lambda head: loss_of(batch["x"], head, one).nll)(batch["head"])

    of_draws = np.asarray(jax.lax.map(lambda targets: gradient(targets, None), drawn), np.float64)
    of_laws = np.asarray(jax.lax.map(lambda targets: gradient(targets, probs), drawn))
    assert np.abs(of_laws - of_laws[0]).max() == 0  # Whatever was drawn.
    error = of_draws.std(axis=0) / len(keys) ** 0.5
    assert error.max() > 0.01
    assert (np.abs(of_draws.mean(axis=0) - of_laws[0]) < 5 * error + 1e-5).all()
