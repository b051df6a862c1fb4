"""Scoring: against the full logits, and against what the engine itself said as it drew."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.model import transformer
from jssd.sampling import draw, generate, score, truncate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.sampling.score import Scorer
from tests.sampling import conftest

CFG = dataclasses.replace(conftest.TINY, vocab_size=200)
LAWS = [
    Sampling(),
    Sampling(0.0),
    Sampling(1.0, 20, 0.8),
    Sampling(0.7, 0, 0.9),
    Sampling(1.5, 150, 0.95),
    Sampling(1.2, min_p=0.05),
]


@pytest.fixture(scope="module")
def params():
    return conftest.loud_params(CFG, seed=3, factor=8)


@pytest.fixture(scope="module")
def scorer(params):
    return Scorer(params, CFG, rows=3, bucket=8, chunk=16)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    ids = lambda size: rng.integers(0, CFG.vocab_size, size).tolist()
    sizes = [(1, 1), (3, 9), (20, 30), (7, 2), (2, 17)]
    return [ids(a) for a, _ in sizes], [ids(b) for _, b in sizes]


def test_scores_equal_those_from_the_full_logits(scorer, params, texts):
    for prompt, ids, scores in zip(*texts, scorer.score(*texts, LAWS)):
        tokens_BT = jnp.array([prompt + ids])
        logits_TV = transformer.apply(params, CFG, tokens_BT)[0, len(prompt) - 1 : -1]
        logprobs_TV = np.asarray(jax.nn.log_softmax(logits_TV), np.float64)
        rows = np.arange(len(ids))
        np.testing.assert_allclose(scores.logprobs, logprobs_TV[rows, ids], atol=2e-5)
        entropies = -(np.exp(logprobs_TV) * logprobs_TV).sum(axis=1)
        np.testing.assert_allclose(scores.entropies, entropies, atol=2e-5)
        for number, law in enumerate(LAWS):
            settings = (law.temperature, law.top_k, law.top_p, law.min_p)
            full = truncate.Law(*(jnp.full(len(ids), x) for x in settings))
            kept_TV = np.asarray(truncate.truncate(logits_TV, full), np.float64)
            inside_TV = np.isfinite(kept_TV)
            tempered_TV = logprobs_TV / (law.temperature or 1.0)
            share_TV = np.exp(tempered_TV) / np.exp(tempered_TV).sum(axis=1, keepdims=True)
            mass = (share_TV * inside_TV).sum(axis=1)
            np.testing.assert_allclose(scores.kept_mass[number], mass, atol=1e-5)
            assert scores.support_sizes[number].tolist() == inside_TV.sum(axis=1).tolist()
            law_TV = share_TV * inside_TV / mass[:, None]
            entropy = -np.where(inside_TV, law_TV * np.log(law_TV + ~inside_TV), 0).sum(axis=1)
            if law.temperature == 0:
                entropy = np.zeros_like(entropy)
            np.testing.assert_allclose(scores.law_entropies[number], entropy, atol=2e-5)
            with np.errstate(divide="ignore"):
                wanted = np.log(share_TV * inside_TV / mass[:, None])[rows, ids]
            if law.temperature == 0:
                wanted = np.where(inside_TV[rows, ids], 0.0, -math.inf)
            np.testing.assert_allclose(scores.law_logprobs[number], wanted, atol=3e-5)


@pytest.mark.parametrize("law", LAWS[1:])
def test_what_a_law_drew_it_also_scores(scorer, params, law):
    engine = Engine(transformer.unstack(params), CFG, num_slots=4, max_len=40)
    requests = [Request((5, i), 0, i, 0, law, (), 24) for i in range(4)]
    drawn = dict(generate.run(engine, requests))
    prompts = [request.prompt_ids for request in requests]
    scored = scorer.score(prompts, [drawn[i].token_ids for i in range(4)], [law])
    for i, scores in enumerate(scored):
        np.testing.assert_allclose(scores.logprobs, drawn[i].logprobs, atol=3e-5)
        assert np.isfinite(scores.law_logprobs).all()
        sizes = np.array(drawn[i].support_sizes)
        known = sizes > 0
        assert (scores.support_sizes[0][known] == sizes[known]).all()
        starts = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
        for t in np.flatnonzero(known):  # The stored law of each draw is the one it was drawn from.
            stored = slice(starts[t], starts[t] + sizes[t])
            probs = np.array(drawn[i].support_probs[stored])
            at = drawn[i].support_ids[stored].index(drawn[i].token_ids[t])
            assert probs.sum() == pytest.approx(1, abs=1e-5)
            assert probs[at] == pytest.approx(np.exp(scores.law_logprobs[0][t]), abs=1e-4)


def test_without_laws_and_in_any_order(scorer, texts):
    forward = scorer.score(*texts)
    backward = scorer.score(texts[0][::-1], texts[1][::-1])[::-1]
    for one, other in zip(forward, backward):
        assert one.law_logprobs.shape == (0, len(one.logprobs))
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert scorer.score([], []) == []


def test_a_sweep_compiles_once(scorer, texts):
    scorer.score(*texts, LAWS[:2])
    before = scorer._chunk._cache_size()
    for temperature in (0.3, 0.9, 1.4):
        scorer.score(*texts, [Sampling(temperature, 5), Sampling(temperature, 0, 0.7)])
    assert scorer._chunk._cache_size() == before


def test_no_tensor_of_all_positions_times_the_vocabulary(params):
    scorer = Scorer(params, CFG, rows=2, bucket=64, chunk=16)
    laws = truncate.Law(jnp.ones(2), jnp.zeros(2, jnp.int32), jnp.full(2, 0.9), jnp.zeros(2))
    x_CD, token_C = jnp.zeros((16, CFG.embed_dim)), jnp.zeros(16, jnp.int32)
    for text in (
        scorer._hidden.lower(params, jnp.zeros((2, 64), jnp.int32)).as_text(),
        scorer._chunk.lower(params, x_CD, token_C, laws).as_text(),
    ):
        assert f"64x{CFG.vocab_size}x" not in text and f"128x{CFG.vocab_size}x" not in text


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[1]], [], "1 prompts and 0 completions must pair up"),
        ([[]], [[1]], "prompt and completion 0 must have at least one token each"),
        ([[1]], [[]], "prompt and completion 0 must have"),
        ([[1] * 60], [[1] * 5], "have 65 tokens together; the model's context is 64"),
    ],
)
def test_what_cannot_be_scored_is_refused(scorer, prompts, completions, message):
    with pytest.raises(ValueError, match=message):
        scorer.score(prompts, completions)


def test_numbers_that_a_temperature_makes_equal_are_in_order_of_id():
    # Of two neighbours the larger has the higher id; divided by 1.9 they are one number, and then a
    # law that has room for one of them keeps the lower id, as a draw does.
    low = np.float32(1.94)
    high = np.nextafter(low, np.float32(2))
    assert np.float32(low / np.float32(1.9)) == np.float32(high / np.float32(1.9))
    logits_V = np.full(400, -20, np.float32)
    logits_V[[7, 300]] = low, high
    laws = score.stack([Sampling(temperature=t, top_p=0.4) for t in (1.9, 1.0)], 400)
    both_BV, token_B = jnp.asarray([logits_V, logits_V]), jnp.asarray([7, 300], jnp.int32)
    found = draw.measure(both_BV, laws, token_B)
    np.testing.assert_array_equal(found.size_B, 1)
    np.testing.assert_array_equal(found.logprob_B > -np.inf, [[True, False], [False, True]])
