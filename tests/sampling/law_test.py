"""Frequencies of draws against the exact law, by chi-square and total variation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jssd.model import transformer
from jssd.model.config import ModelConfig, Rope
from jssd.sampling import draw, generate, noise
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.sampling.truncate import Law
from tests.sampling import conftest

NUM_DRAWS = 20_000
VOCAB = 24


def law_of(logits, temperature, top_k, top_p, min_p):
    """Exact probabilities in float64, written from the definition."""
    logits = np.asarray(logits, np.float64)
    probs = np.zeros_like(logits)
    if temperature < 1e-5:
        probs[np.argmax(logits)] = 1
        return probs
    tempered = logits / temperature
    order = np.lexsort((np.arange(len(logits)), -tempered))
    if top_k:
        kth = tempered[order[min(top_k, len(order)) - 1]]
        order = order[tempered[order] >= kth]
    weights = np.exp(tempered[order] - tempered.max())
    weights /= weights.sum()
    if top_p < 1:
        reached = int(np.searchsorted(np.cumsum(weights), top_p - 1e-7)) + 1
        order, weights = order[:reached], weights[:reached]
    if min_p > 0:
        stays = weights >= min_p * weights[0]
        order, weights = order[stays], weights[stays]
    probs[order] = weights / weights.sum()
    return probs


def assert_drawn_from(tokens, probs):
    """Chi-square at p > 1e-4 over bins of at least 5 expected draws, and total variation."""
    n = len(tokens)
    counts = np.bincount(tokens, minlength=len(probs))
    assert counts[probs == 0].sum() == 0, "a token outside the law was drawn"
    order = np.argsort(probs)[::-1]
    expected, observed = (probs * n)[order], counts[order]
    big = expected >= 5
    expected = np.append(expected[big], expected[~big].sum())
    observed = np.append(observed[big], observed[~big].sum())
    if expected[-1] < 5 and len(expected) > 1:
        expected = np.append(expected[:-2], expected[-2] + expected[-1])
        observed = np.append(observed[:-2], observed[-2] + observed[-1])
    if len(expected) > 1:
        p = scipy.stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue
        assert p > 1e-4, (p, expected, observed)
    # The mean of |count - expected| under the law is below sqrt(expected).
    variation = np.abs(counts / n - probs).sum() / 2
    assert variation < 1.5 * np.sqrt(probs / n).sum() / 2 + 3 / math.sqrt(n)


@functools.partial(jax.jit, static_argnums=4)
def _draws(logits_V, law, seed, samples_B, num_candidates):
    B = samples_B.shape[0]
    full = jnp.full(B, seed, jnp.uint32)
    keys_B = noise.position_keys(
        noise.row_keys(full, full + 1, samples_B), jnp.full(B, 2, jnp.int32)
    )
    laws = jax.tree.map(lambda x: jnp.broadcast_to(x, B), law)
    logits_BV = jnp.broadcast_to(logits_V, (B, logits_V.shape[0]))
    return draw.draw(logits_BV, laws, keys_B, num_candidates).token_B


def _logits(kind):
    rng = np.random.default_rng(0)
    if kind == "tied":
        return rng.integers(0, 4, VOCAB) * 0.5
    return rng.normal(size=VOCAB) * {"random": 1.5, "peaked": 4.0, "flat": 0.01}[kind]


@pytest.mark.parametrize("num_candidates", [6, VOCAB])
@pytest.mark.parametrize("kind", ["random", "tied", "peaked", "flat"])
@pytest.mark.parametrize(
    "settings",
    [
        (1.0, 0, 1.0, 0.0),
        (0.6, 0, 1.0, 0.0),
        (1.5, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.5, 20, 0.8, 0.0),
        (1.0, 0, 0.63, 0.0),
        (1.0, 0, 1.0, 0.11),
        (1.3, 9, 0.87, 0.21),
        (0.0, 5, 0.9, 0.1),
    ],
)
def test_draws_follow_the_law(settings, kind, num_candidates):
    logits = _logits(kind).astype(np.float32)
    law = Law(*(jnp.asarray(x, kind) for x, kind in zip(settings, ("f4", "i4", "f4", "f4"))))
    samples_B = jnp.arange(NUM_DRAWS, dtype=jnp.uint32)
    tokens = np.asarray(_draws(jnp.asarray(logits), law, 3, samples_B, num_candidates))
    assert_drawn_from(tokens, law_of(logits, *settings))


def test_positions_of_one_completion_are_independent_draws():
    logits_V = jnp.asarray(_logits("random"), jnp.float32)
    n = NUM_DRAWS
    one = jnp.zeros(n, jnp.uint32)
    keys_B = noise.position_keys(noise.row_keys(one, one, one), jnp.arange(n))
    ones = jnp.ones(n)
    law = Law(ones, jnp.zeros(n, jnp.int32), ones, ones * 0)
    tokens = np.asarray(
        jax.jit(draw.draw)(jnp.broadcast_to(logits_V, (n, VOCAB)), law, keys_B).token_B
    )
    probs = law_of(logits_V, 1.0, 0, 1.0, 0.0)
    assert_drawn_from(tokens, probs)
    # Neighbours: pairs follow the product of the law with itself.
    pairs = tokens[0::2] * VOCAB + tokens[1::2]
    assert_drawn_from(pairs, np.outer(probs, probs).ravel())


def test_a_wrong_law_is_noticed():
    """The test of the test: a temperature that is off by 10% fails it."""
    logits = _logits("random").astype(np.float32)
    law = Law(jnp.float32(1.0), jnp.int32(0), jnp.float32(1.0), jnp.float32(0.0))
    tokens = np.asarray(
        _draws(jnp.asarray(logits), law, 3, jnp.arange(NUM_DRAWS, dtype=jnp.uint32), VOCAB)
    )
    with pytest.raises(AssertionError):
        assert_drawn_from(tokens, law_of(logits, 1.1, 0, 1.0, 0.0))


PROMPT = (3, 1, 4)
LAWS = [
    Sampling(temperature, top_k, top_p, min_p)
    for temperature in (0.6, 1.0, 1.5)
    for top_k in (0, 5)
    for top_p in (1.0, 0.8)
    for min_p in (0.0, 0.12)
] + [Sampling(0.0, 5, 0.9, 0.1)]


@pytest.fixture(scope="module")
def completions(engine):
    """3,000 completions of two tokens for each law, all laws side by side in the slots."""
    number = generate.prompt_number("a prompt")
    requests = [
        Request(PROMPT, 5, number, 3000 * i + k, law, (), 2)
        for k in range(3000)
        for i, law in enumerate(LAWS)
    ]
    done = dict(generate.run(engine, requests, keep_support=False))
    return [[done[i] for i in range(start, len(done), len(LAWS))] for start in range(len(LAWS))]


@pytest.mark.parametrize("index", range(len(LAWS)), ids=map(str, LAWS))
def test_completions_of_the_engine_follow_the_law_of_the_model(completions, index):
    """Two tokens of one prompt, by many sample numbers: the joint law is the chain of two laws."""
    sampling, done = LAWS[index], completions[index]
    drawn = np.array([completion.token_ids for completion in done])

    rows = np.array([(*PROMPT, token) for token in range(CFG.vocab_size)], np.int32)
    logits_BTV = transformer.apply(_params(), CFG, jnp.asarray(rows))
    settings = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    first = law_of(logits_BTV[0, 2], *settings)
    second = np.stack([law_of(row, *settings) for row in logits_BTV[:, 3]])
    kept = first[first > 0]
    if sampling.temperature > 0:  # Worth testing: neither sure nor a fair die.
        assert len(kept) > 1 and 1.05 * kept.mean() < kept.max() < 0.95
    assert_drawn_from(drawn[:, 0], first)
    assert_drawn_from(drawn[:, 0] * CFG.vocab_size + drawn[:, 1], (first[:, None] * second).ravel())
    # The stored logprob is that of the untruncated model, not of the law.
    wanted = np.asarray(jax.nn.log_softmax(logits_BTV[0, 2]))
    ours = np.array([completion.logprobs[0] for completion in done])
    np.testing.assert_allclose(ours, wanted[drawn[:, 0]], atol=1e-5)


CFG = ModelConfig(
    family="llama",
    vocab_size=12,
    embed_dim=16,
    mlp_dim=24,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_seq_len=16,
    norm_eps=1e-6,
    rope=Rope(10000.0),
    tied_head=True,
)


def _params():
    return conftest.loud_params(CFG, seed=2, factor=12)


@pytest.fixture(scope="module")
def engine():
    return Engine(
        transformer.unstack(_params()), CFG, num_slots=256, max_len=8, prompt_bucket=8,
        decode_steps=2,
    )  # fmt: skip
