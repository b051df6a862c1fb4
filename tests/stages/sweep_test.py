"""Tests of a sweep's arithmetic, names and figures; tests/e2e/sweep_test.py runs one."""

import math

import numpy as np
import pytest

from jssd.config import Config, TruncationConfig
from jssd.evals import passk
from jssd.rules import validate
from jssd.sampling.request import Sampling
from jssd.stages import grids, heatmaps, ink, sweep_summary

# pass@1 and pass@5 of 30B-Instruct on LiveCodeBench v6 (paper, sweep without truncation): rows
# T_train, columns T_eval.
T_TRAIN, T_EVAL = (0.5, 0.7, 1.0, 1.5, 2.0), np.arange(6, 16) / 10
PAPER = {
    1: [
        [43.5, 43.5, 43.7, 43.4, 44.0, 43.6, 44.3, 43.9, 45.5, 45.2],
        [44.3, 44.0, 43.9, 45.5, 44.8, 44.3, 45.3, 45.2, 44.4, 45.1],
        [44.7, 44.1, 44.2, 45.3, 45.3, 44.7, 45.3, 45.3, 45.7, 45.1],
        [45.6, 46.0, 46.6, 46.3, 46.3, 47.4, 46.3, 46.6, 42.7, 38.1],
        [46.0, 46.3, 47.4, 48.1, 47.5, 47.0, 43.6, 40.8, 36.6, 30.9],
    ],
    5: [
        [56.5, 56.6, 57.9, 56.6, 57.8, 58.8, 58.7, 57.9, 58.2, 59.5],
        [56.8, 57.9, 57.3, 58.5, 58.9, 59.1, 59.3, 59.6, 59.4, 61.6],
        [59.0, 58.1, 58.8, 60.1, 59.6, 59.5, 59.1, 60.3, 62.3, 60.9],
        [59.2, 60.1, 60.2, 61.1, 59.6, 60.3, 59.9, 60.1, 56.7, 53.3],
        [61.7, 61.7, 62.5, 64.0, 63.8, 64.0, 60.6, 58.4, 54.4, 54.1],
    ],
}


@pytest.mark.parametrize(("k", "r2", "peak"), [(1, 0.74, 1.32), (5, 0.53, 1.53)])
def test_quadratic_in_teff_of_the_papers_grid(k, r2, peak):
    # The paper says R^2 0.75 and a peak near 1.2 of pass@1.
    fit = sweep_summary.fit_teff(np.outer(T_TRAIN, T_EVAL).ravel(), np.ravel(PAPER[k]))
    assert fit["r2"] == pytest.approx(r2, abs=0.01)
    assert fit["peak"] == pytest.approx(peak, abs=0.01)


def test_a_curve_without_a_maximum_has_no_peak():
    fit = sweep_summary.fit_teff([0, 1, 2, 3], [0, 1, 4, 9])
    assert fit["r2"] == pytest.approx(1)
    assert math.isnan(fit["peak"])
    assert sweep_summary.fit_teff([0, 1, 2, 3], [5, 5, 5, 5])["r2"] == 0


def sweep_config(**fields) -> Config:
    config = Config()
    config.model.path, config.prompts.source = "model", "tasks:train"
    config.train.num_steps, config.train.save_every, config.train.warmup_steps = 4, 2, 1
    for name, value in fields.items():
        setattr(config.sweep, name, value)
    return config


def test_grid_is_the_product_and_every_cell_has_its_own_place(tmp_path):
    config = sweep_config(
        train_temperatures=(0.8, 1.5),
        checkpoints=(2, 4),
        eval_temperatures=(0.0, 0.6, 1),
        eval_truncations=[TruncationConfig(), TruncationConfig(20, 0.95), TruncationConfig(20)],
    )
    validate(config)
    models = grids.models(config)
    assert [model.name for model in models] == [
        "base", "train-t0.8@2", "train-t0.8@4", "train-t1.5@2", "train-t1.5@4",
    ]  # fmt: skip
    cells = [cell for model in models for cell in grids.cells(config, model)]
    assert len({cell.place(tmp_path) for cell in cells}) == len(cells) == 5 * 9
    hot = grids.Cell(models[-1], "tasks", Sampling(0.6, 20, 0.95))
    assert hot.place(tmp_path) == tmp_path / "sweep/cells/tasks/train-t1.5@4/t0.6-k20-p0.95"
    assert hot.teff == pytest.approx(0.9)
    assert grids.Cell(models[0], "tasks", Sampling(0.6)).teff is None


def test_training_truncation_is_the_samplings_own_unless_named():
    config = sweep_config(train_temperatures=(1.2,), eval_temperatures=(1.0,))
    config.sampling.top_k = 5
    assert grids.train_laws(config) == [Sampling(1.2, 5)]
    config.sweep.train_truncations = [TruncationConfig(), TruncationConfig(0, 0.9)]
    assert grids.train_laws(config) == [Sampling(1.2), Sampling(1.2, 0, 0.9)]


@pytest.mark.parametrize(
    ("drawn", "target", "wide"),
    [
        (Sampling(1.0), Sampling(0.7, 20, 0.9), True),
        (Sampling(0.7), Sampling(0.8), False),
        (Sampling(1.0, 20), Sampling(0.8), False),
        (Sampling(1.0, 20), Sampling(0.8, 20), True),
        (Sampling(1.0, 20, 0.8), Sampling(0.8, 10, 0.9), False),
        (Sampling(1.0, min_p=0.1), Sampling(1.0), False),
    ],
)
def test_width_of_laws(drawn, target, wide):
    assert grids.as_wide(drawn, target) is wide


STUDENTS = {"train_temperatures": (1.0,), "eval_temperatures": (1.0,)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"eval_temperatures": (-0.1,)},
            r"sweep\.eval_temperatures=\(-0\.1,\) must hold numbers 0",
        ),
        ({"eval_temperatures": (0.5, 0.5)}, "must name each one once"),
        (
            {"eval_temperatures": (1.0,), "predict_temperatures": (0.0,)},
            "must hold numbers above 0",
        ),
        (
            {"eval_temperatures": (0.0,), "predict_temperatures": (1.0,)},
            "needs a temperature above",
        ),
        ({"train_temperatures": (1.0,)}, r"sweep\.eval_temperatures=\(\) must name"),
        ({"eval_temperatures": (1.0,), "base": False}, "leaves nothing to decode"),
        (
            {"eval_temperatures": (1.0,), "eval_truncations": [TruncationConfig(top_p=0.0)]},
            r"sweep\.eval_truncations\[0\]\.top_p=0\.0 must be in",
        ),
        ({"checkpoints": (2,)}, r"sweep\.checkpoints=\(2,\) needs sweep\.train_temperatures"),
        (
            {"checkpoints": (2, 4, 2), **STUDENTS},
            r"sweep\.checkpoints=\(2, 4, 2\) must name each one once",
        ),
        *(
            (
                {f"{part}_truncations": [TruncationConfig(20)]},
                rf"sweep\.{part}_truncations needs sweep\.{part}_temperatures",
            )
            for part in ("train", "eval", "predict")
        ),
        ({"checkpoints": (3,)}, r"sweep\.checkpoints=3 must be train\.num_steps=4 or a multiple"),
        ({"checkpoints": (6,)}, r"sweep\.checkpoints=6 must be train\.num_steps=4"),
    ],
)
def test_grids_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        validate(sweep_config(**fields))


def test_checkpoints_must_still_be_there_at_the_end():
    config = sweep_config(checkpoints=(2,), **STUDENTS)
    config.train.keep_last = 1
    with pytest.raises(ValueError, match=r"train\.keep_last=1 must be at least 2"):
        validate(config)


def make_summary() -> dict:
    def row(trained_at, step, t_eval, value):
        law = Sampling(t_eval)
        cell = grids.Cell(grids.Model(trained_at, step), "tasks", law)
        estimate = vars(passk.Estimate(value, value - 0.1, value + 0.1))
        scores = {"n": 2, "problems": 20, "verdicts": {}, "mean_tokens": 1.0, "truncated": 0.0}
        return sweep_summary._row(cell, scores | {"pass_at": {"1": estimate}})

    rows = [row(None, 0, t, 0.4) for t in (0.5, 1.0)]
    rows += [
        row(Sampling(t_train), step, t_eval, 0.6 - (t_train * t_eval - 0.8) ** 2 / 4)
        for t_train in (0.5, 1.0, 1.5)
        for step in (2, 4)
        for t_eval in (0.5, 1.0, 1.5)
    ]
    predicted = {
        "benchmark": "tasks", "model": "base", "law": vars(Sampling(0.8)), "trusted": False,
        "pass_at_1": {"value": 0.3, "low": 0.2, "high": 0.4}, "measured": None,
    }  # fmt: skip
    return {
        "cells": rows, "predictions": [predicted], "teff": sweep_summary._teff(rows),
        "best": [], "tuned": [],
    }  # fmt: skip


def test_figures_for_every_slice_of_the_grid():
    summary = make_summary()
    drawn = dict(heatmaps.draw_all(summary))
    slices = [f"tasks-pass1-train-whole-eval-whole-step{step}" for step in (2, 4)]
    students = [f"train-t{t}" for t in (0.5, 1.0, 1.5)]
    assert sorted(drawn) == sorted(
        [
            "base-tasks-pass1",
            *(f"{kind}-{name}" for kind in ("heat", "teff") for name in slices),
            *(f"steps-tasks-pass1-{student}-eval-whole" for student in students),
        ]
    )
    assert all(plot.light.startswith(b"\x89PNG") for plot in drawn.values())


def test_a_score_that_only_depends_on_teff_is_fitted_exactly():
    for fit in make_summary()["teff"]:
        assert fit["r2"] == pytest.approx(1)
        assert fit["peak"] == pytest.approx(0.8)


def test_heat_map_holds_the_numbers_where_they_belong():
    plain = heatmaps.heat.__wrapped__
    rows = heatmaps._by_k(make_summary()["cells"])
    some = [row for row in rows if row["step"] == 4]
    figure = plain(
        ink.LIGHT, some, [0.5, 1.0, 1.5], lambda r: r["trained_at"]["temperature"], "T_train", "t"
    )
    axes = figure.axes[0]
    texts = {t.get_position(): t.get_text() for t in axes.texts if "T_eff" not in t.get_text()}
    assert texts[2, 0] == texts[0, 2] == f"{60 - 100 * 0.05**2 / 4:.1f}"  # T_eff 0.75 both ways.
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5", "1", "1.5"]
    assert any("T_eff" in text.get_text() for text in axes.texts)  # On its lines.
