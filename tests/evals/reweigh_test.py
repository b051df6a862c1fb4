"""Predictions against exact answers: a language of four-token completions, counted out whole."""

import itertools

import numpy as np
import pytest

from jssd.evals import reweigh

V, LENGTH, PROBLEMS = 5, 4, 40
EVERY = np.array(list(itertools.product(range(V), repeat=LENGTH)))  # [625, 4]
HOW = {"resamples": 300, "seed": 0}
# Logits of the next token by problem and last token (V is the start), and what counts as right.
LOGITS = np.random.default_rng(0).normal(0, 1.2, (PROBLEMS, V + 1, V))


def log_probs(temperature: float, top_k: int = V) -> np.ndarray:
    """Of every completion of every problem under a law, [P, 625]."""
    tempered = LOGITS / temperature
    kth = np.sort(tempered, axis=2)[..., -top_k, None]
    kept = np.where(tempered >= kth, tempered, -np.inf)
    step = kept - np.log(np.exp(kept).sum(axis=2, keepdims=True))
    before = np.column_stack([np.full(len(EVERY), V), EVERY[:, :-1]])
    return step[:, before, EVERY].sum(axis=2)


# Likely completions are right more often, so that the temperature matters.
RIGHT = log_probs(1.0) + np.random.default_rng(1).normal(0, 1, (PROBLEMS, len(EVERY))) > -4


def exact(law: np.ndarray) -> float:
    return float((np.exp(law) * RIGHT).sum(axis=1).mean())


def predict(drawn: list[np.ndarray], target: np.ndarray, n: int, seed: int) -> reweigh.Prediction:
    """From `n` completions of each problem under each of the laws `drawn`."""
    rng = np.random.default_rng(seed)
    rows = [
        (problem, law, choice)
        for problem in range(PROBLEMS)
        for law, logs in enumerate(drawn)
        for choice in rng.choice(len(EVERY), n, p=np.exp(logs[problem]))
    ]
    problem, law, choice = np.array(rows).T
    return reweigh.predict(
        problem, RIGHT[problem, choice], target[problem, choice],
        [logs[problem, choice] for logs in drawn], law, **HOW,
    )  # fmt: skip


def test_many_completions_give_the_exact_answer():
    for target in (log_probs(0.7), log_probs(1.3), log_probs(0.9, top_k=2)):
        found = predict([log_probs(1.0)], target, 3000, 0)
        assert found.pass_at_1.value == pytest.approx(exact(target), abs=0.01)
        assert abs(exact(target) - exact(log_probs(1.0))) > 0.012
        assert found.covered == pytest.approx(1, abs=0.02)
        assert found.reached == 1 and found.enough


def test_the_law_that_was_drawn_is_its_own_estimate():
    law = log_probs(1.0)
    found = predict([law], law, 8, 3)
    assert found.effective == pytest.approx(8) == found.drawn
    assert found.covered == pytest.approx(1)
    rng = np.random.default_rng(3)
    right = [RIGHT[p, rng.choice(len(EVERY), 8, p=np.exp(law[p]))].mean() for p in range(PROBLEMS)]
    assert found.pass_at_1.value == pytest.approx(np.mean(right))


def test_error_is_no_more_than_the_interval_says():
    # The interval is over problems; these are fixed, so it covers at least as often as it claims.
    target = log_probs(0.8)
    runs = [predict([log_probs(1.0), log_probs(0.6)], target, 6, seed) for seed in range(60)]
    hits = [run.pass_at_1.low <= exact(target) <= run.pass_at_1.high for run in runs]
    assert np.mean(hits) >= 0.93
    errors = [run.pass_at_1.value - exact(target) for run in runs]
    assert abs(np.mean(errors)) < 0.015


def test_laws_on_both_sides_tell_more_than_one():
    target = log_probs(0.8)
    both = predict([log_probs(1.1), log_probs(0.6)], target, 6, 0)
    for alone in (log_probs(1.1), log_probs(0.6)):
        assert both.effective > predict([alone], target, 12, 0).effective


def test_a_farther_target_has_fewer_effective_completions():
    found = [predict([log_probs(1.3)], log_probs(t), 8, 0) for t in (1.2, 0.9, 0.3)]
    assert found[0].effective > found[1].effective > found[2].effective
    assert [run.enough for run in found] == [True, True, False]


def test_from_colder_laws_alone_a_prediction_leans_to_them_and_looks_even():
    # Why `predict_stored` asks for a drawn law at least as wide before it trusts one.
    target = log_probs(0.8)
    found = predict([log_probs(0.4)], target, 6, 0)
    assert found.enough
    assert exact(target) < found.pass_at_1.low < exact(log_probs(0.4))
    wider = predict([log_probs(0.4), log_probs(0.9)], target, 6, 0)
    assert wider.pass_at_1.low < exact(target) < wider.pass_at_1.high


def test_what_a_tighter_law_cannot_draw_shows_as_not_covered():
    drawn, target = log_probs(1.0, top_k=3), log_probs(1.0)
    reachable = np.exp(np.where(drawn > -np.inf, target, -np.inf)).sum(axis=1).mean()
    found = predict([drawn], target, 2000, 0)
    assert reachable < 0.8
    assert found.covered == pytest.approx(reachable, abs=0.02)


def test_problems_without_any_possible_completion_are_counted():
    log = [0.0, 0.0, 0.0, 0.0]
    found = reweigh.predict([0, 0, 1, 1], [1, 0, 1, 1], [-np.inf, 0.0, -np.inf, -np.inf], [log],
                            [0, 0, 0, 0], **HOW)  # fmt: skip
    assert (found.reached, found.pass_at_1.value, found.effective) == (0.5, 0.0, 0.5)
    assert not found.enough
    with pytest.raises(ValueError, match="no stored completion could have been drawn"):
        reweigh.predict([0], [1], [-np.inf], [[0.0]], [0], **HOW)


def test_weights_beyond_the_range_of_floats_are_compared_all_the_same():
    found = reweigh.predict([0, 0], [1, 0], [-1000.0, -1001.0], [[-3000.0, -3000.0]], [0, 0], **HOW)
    assert found.pass_at_1.value == pytest.approx(1 / (1 + np.exp(-1)))


def test_completions_outside_every_drawn_law_are_left_out():
    found = reweigh.predict([0, 0], [1, 0], [-1.0, -1.0], [[-np.inf, -1.0]], [0, 0], **HOW)
    assert found.pass_at_1.value == 0


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one number per completion"):
        reweigh.predict([0, 0], [1, 0], [0.0], [[0.0, 0.0]], [0, 0], **HOW)
