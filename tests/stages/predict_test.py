"""Predictions by re-scoring against the exact answer: every completion of a tiny model counted."""

import dataclasses
import itertools

import numpy as np
import pytest

from jssd.data import samples
from jssd.sampling.request import Sampling
from jssd.sampling.score import Scorer
from jssd.stages import predict
from tests.sampling import conftest

CFG = dataclasses.replace(conftest.TINY, vocab_size=12)
EVERY = list(itertools.product(range(CFG.vocab_size), repeat=2))  # All of length 2.
DRAWN = [Sampling(1.2), Sampling(0.6)]
TARGETS = [Sampling(0.9), Sampling(0.9, 4), Sampling(0.6), Sampling(1.2)]
LAWS = [*DRAWN, *TARGETS]  # One number of laws: one program.
PROMPTS = [[i % 12, (5 * i + 1) % 12, i // 12] for i in range(24)]


@pytest.fixture(scope="module")
def scorer():
    return Scorer(conftest.loud_params(CFG, seed=0, factor=10), CFG, rows=16, bucket=8, chunk=64)


def record(prompt: int, ids: tuple[int, ...]) -> samples.Sample:
    return samples.Sample(
        prompt_id=f"p{prompt}", sample=0, prompt="", prompt_token_ids=PROMPTS[prompt],
        token_ids=list(ids), text="", logprobs=[], support_sizes=[], support_ids=[],
        finish_reason="length", sampling={}, seed=0, fingerprint="", template="user",
    )  # fmt: skip


@pytest.fixture(scope="module")
def exact(scorer):
    """Probability of every completion of every prompt under each law, [L, P, 144]."""
    records = [record(p, ids) for p in range(len(PROMPTS)) for ids in EVERY]
    logs = predict.score(scorer, records, LAWS)
    return np.exp(logs).reshape(len(logs), len(PROMPTS), len(EVERY))


# Right is what begins with one of the first three tokens.
RIGHT = np.array([ids[0] < 3 for ids in EVERY])


def test_completions_of_a_law_add_up_to_one(exact):
    np.testing.assert_allclose(exact.sum(axis=2), 1, atol=1e-4)


def stored_completions(exact, n: int) -> predict.Stored:
    rng = np.random.default_rng(0)
    law, records, right = [], [], []
    for index, probs_PC in enumerate(exact[:2]):
        for prompt, probs in enumerate(probs_PC):
            for choice in rng.choice(len(EVERY), n, p=probs / probs.sum()):
                law.append(index)
                records.append(record(prompt, EVERY[choice]))
                right.append(RIGHT[choice])
    return predict.Stored(DRAWN, np.array(law), records, np.array(right))


def test_predictions_hold_the_exact_answer(scorer, exact):
    stored = stored_completions(exact, 40)
    logs = predict.score(scorer, stored.records, LAWS)
    truths = (exact[2:] * RIGHT).sum(axis=2).mean(axis=1)
    for law, target_S, truth in zip(TARGETS, logs[2:], truths):
        row = predict.one(stored, logs[:2], law, target_S, resamples=300, seed=0)
        assert row is not None
        assert row["law"]["temperature"] == law.temperature
        assert row["decoded"] == (law in stored.laws)
        # Of the law that is checked, its own completions are left out.
        assert row["drawn"] == (40 if row["decoded"] else 80)
        assert row["as_wide"] == (law.temperature < 1.2)
        if row["trusted"]:
            assert row["pass_at_1"]["value"] == pytest.approx(truth, abs=0.03)
        if not row["decoded"]:
            assert row["trusted"]
    assert np.ptp(truths) > 0.03  # The laws differ, or nothing was shown.


def test_equal_completions_are_scored_once(scorer, monkeypatch):
    seen = []
    plain = scorer.score
    monkeypatch.setattr(
        scorer, "score", lambda p, c, laws: seen.append(len(p)) or plain(p, c, laws)
    )
    logs = predict.score(scorer, [record(0, (1, 2)), record(1, (1, 2)), record(0, (1, 2))], LAWS)
    assert seen == [2]
    assert logs.shape == (len(LAWS), 3)
    np.testing.assert_array_equal(logs[:, 0], logs[:, 2])


def test_a_target_out_of_reach_is_no_row(scorer, exact):
    stored = stored_completions(exact, 1)
    never = np.full(len(stored.records), -np.inf)
    logs = predict.score(scorer, stored.records, LAWS)[:2]
    assert predict.one(stored, logs, Sampling(0.3, 1), never, resamples=10, seed=0) is None
