"""Base and student side by side: against the full logits, and against the sampler's own scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.analysis import locks_forks
from jssd.model import transformer
from jssd.sampling.request import Sampling
from jssd.sampling.score import Scorer
from tests.sampling import conftest

CFG = dataclasses.replace(conftest.TINY, vocab_size=200)
TRAINING = Sampling(1.5, 10, 0.8)
EVALUATION = [Sampling(0.4, 20, 0.8), Sampling(2.0, 20, 0.8)]


@pytest.fixture(scope="module")
def models():
    return [(CFG, conftest.loud_params(CFG, seed=seed, factor=8)) for seed in (3, 4)]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    ids = lambda size: rng.integers(0, CFG.vocab_size, size).tolist()
    sizes = [(1, 1), (3, 9), (20, 30), (7, 2)]
    return [ids(a) for a, _ in sizes], [ids(b) for _, b in sizes]


def pair_of(base, student):
    return locks_forks.Pair(
        base, student, training=TRAINING, evaluation=EVALUATION, rows=3, bucket=8, chunk=16
    )


@pytest.fixture(scope="module")
def looked(models, texts):
    return list(pair_of(*models).look(*texts))


def test_views_follow_from_the_full_logits(models, texts, looked):
    assert len(looked) == 4
    for prompt, ids, (views, _) in zip(*texts, looked):
        probs = {}
        for name, (_, params) in zip(("base", "student"), models):
            tokens_BT = jnp.array([prompt + ids])
            logits_TV = transformer.apply(params, CFG, tokens_BT)[0, len(prompt) - 1 : -1]
            probs[name] = np.asarray(jax.nn.softmax(logits_TV), np.float64)
        for t in range(len(ids)):
            # S by hand: the ten likeliest of the tempered base, then the shortest prefix of 0.8.
            ranked = np.argsort(-probs["base"][t])[:10]
            tempered = probs["base"][t][ranked] ** (1 / 1.5)
            before = np.cumsum(tempered / tempered.sum()) - tempered / tempered.sum()
            S = ranked[before < 0.8]
            for name, view in views.items():
                p = probs[name][t]
                assert view.tail_mass[t] == pytest.approx(1 - p[S].sum(), abs=1e-5)
                c = p[S] / p[S].sum()
                assert view.head_entropy[t] == pytest.approx(-(c * np.log(c)).sum(), abs=1e-4)
                assert view.entropy[t] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
                top = -np.sort(-p)[: locks_forks.RANKS]
                np.testing.assert_allclose(view.top_probs[t], top, atol=1e-5)
            assert views["base"].support[t] == len(S)


def test_laws_are_those_of_the_scorer(models, texts, looked):
    for name, (cfg, params) in zip(("base", "student"), models):
        scored = Scorer(params, cfg, rows=3, bucket=8, chunk=16).score(
            texts[0], texts[1], [TRAINING, *EVALUATION]
        )
        for scores, (views, _) in zip(scored, looked):
            view = views[name]
            np.testing.assert_allclose(view.logprob, scores.logprobs, atol=2e-5)
            assert view.support.tolist() == scores.support_sizes[0].tolist()
            assert view.eval_supports.T.tolist() == scores.support_sizes[1:].tolist()
            np.testing.assert_allclose(view.eval_entropies.T, scores.law_entropies[1:], atol=2e-5)


def test_rows_name_locks_and_forks(texts, looked):
    for ids, (views, losses) in zip(texts[1], looked):
        rows = locks_forks.rows(views, losses, ids, fork_entropy=2.0)
        assert [row["token"] for row in rows] == ids
        for t, row in enumerate(rows):
            assert row["kind"] == ("fork" if views["base"].entropy[t] >= 2.0 else "lock")
            assert row["base"]["top_mass"] == pytest.approx(views["base"].top_probs[t, :20].sum())
            assert np.float32(row["student"]["tail_mass"]) == views["student"].tail_mass[t]
            parts = row["student"]["loss"]
            assert parts["compression"] == pytest.approx(
                -np.log1p(-row["student"]["tail_mass"]), abs=1e-4
            )
    views, losses = looked[2]
    middle = float(np.median(views["base"].entropy))
    rows = locks_forks.rows(views, losses, texts[1][2], fork_entropy=middle)
    assert sum(row["kind"] == "fork" for row in rows) == 15  # Of 30.


def test_a_model_beside_itself_has_not_moved(models, texts):
    for views, losses in pair_of(models[0], models[0]).look(*texts):
        for leaf, other in zip(*(jax.tree.leaves(views[name]) for name in locks_forks.MODELS)):
            np.testing.assert_array_equal(leaf, other)
        np.testing.assert_array_equal(losses["base"].alignment, losses["student"].alignment)


def test_models_of_different_vocabularies_are_refused(models):
    other = dataclasses.replace(CFG, vocab_size=100)
    with pytest.raises(ValueError, match=r"200 and 100 tokens\. Compare models"):
        pair_of(models[0], (other, conftest.loud_params(other, seed=0, factor=8)))
