"""Tests of jssd/data/packing.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jssd.config import PACKING
from jssd.data import packing

LENGTHS = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(LENGTHS, st.integers(0, 3), st.integers(0, 3), st.sampled_from(PACKING))
def test_each_sample_is_on_exactly_one_row_and_no_row_overflows(lengths, seed, epoch, pack):
    rows = packing.rows(np.array(lengths), 16, seed=seed, epoch=epoch, packing=pack)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(sum(lengths[sample] for sample in row) <= 16 for row in rows)
    if pack != "packed":
        assert all(len(row) == 1 for row in rows)


@given(LENGTHS)
def test_first_fit_leaves_at_most_one_row_half_empty(lengths):
    # Two rows at most half full would have shared one row.
    rows = packing.rows(np.array(lengths), 16, seed=0, epoch=0, packing="packed")
    assert sum(sum(lengths[sample] for sample in row) <= 8 for row in rows) <= 1


def test_the_order_never_changes():
    # The order of a run under way must survive a NumPy upgrade: these are frozen.
    assert packing.order(6, 0, 0).tolist() == [0, 3, 5, 1, 2, 4]
    plan = packing.rows(np.full(6, 3), 6, seed=0, epoch=0, packing="packed")
    assert plan == [[5, 1], [2, 4], [0, 3]]


def test_order_differs_by_seed_epoch_and_stream():
    orders = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({tuple(packing.order(20, *key)) for key in orders}) == 4


def test_a_row_that_left_the_open_rows_takes_no_more(monkeypatch):
    monkeypatch.setattr(packing, "_OPEN_ROWS", 2)
    monkeypatch.setattr(packing, "order", lambda count, *args, **kwargs: np.arange(count))
    # Rows 0 to 2 hold 3 of 4 each; when row 2 opens, row 0 closes, so the first 1 goes to row 1.
    rows = packing.rows(np.array([3, 3, 3, 1, 1, 1]), 4, seed=0, epoch=0, packing="packed")
    assert rows == [[0], [1, 3], [2, 4], [5]]


def test_a_ladder_doubles_up_to_the_limit_in_at_most_eight_rungs():
    assert packing.ladder(65536) == (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
    assert packing.ladder(1000) == (128, 256, 512, 1000)
    assert packing.ladder(128) == (128,)
    assert packing.ladder(16) == (16,)


def test_bucketed_rows_stand_longest_first_on_the_lowest_rung_that_holds_them():
    cut = packing.micro_batches(np.array([5, 300, 128, 129]), 512, 2, packing="bucketed")
    assert [(places.tolist(), length) for places, length in cut] == [([1, 3], 512), ([2, 0], 128)]
    for mode in ("packed", "none"):
        cut = packing.micro_batches(np.array([5, 300, 128, 129]), 512, 2, packing=mode)
        assert [(places.tolist(), length) for places, length in cut] == [
            ([0, 1], 512),
            ([2, 3], 512),
        ]


@given(st.lists(st.integers(1, 2000), min_size=4, max_size=40), st.sampled_from(PACKING))
def test_every_row_of_a_step_is_in_one_micro_batch_that_it_fits(lengths, mode):
    lengths = np.array(lengths[: len(lengths) // 4 * 4])
    cut = packing.micro_batches(lengths, 2000, 4, packing=mode)
    assert sorted(np.concatenate([places for places, _ in cut]).tolist()) == list(
        range(len(lengths))
    )
    for places, length in cut:
        assert len(places) == len(lengths) // 4
        assert lengths[places].max() <= length <= 2000


def test_tokens_per_step_of_each_mode():
    # One sample of 512 and three of 100, in one step of two micro-batches.
    cost = {
        mode: packing.tokens_per_step(
            np.array([100, 512, 100, 100]),
            512,
            seed=0,
            global_batch_size=4,
            grad_accum=2,
            packing=mode,
        )
        for mode in PACKING
    }
    assert cost["none"] == {"real": 812, "computed": 4 * 512, "share": 812 / (4 * 512)}
    assert cost["bucketed"] == {"real": 812, "computed": 2 * 512 + 2 * 128, "share": 812 / 1280}
    # Two rows hold all samples, so a step of four rows has them twice.
    assert cost["packed"] == pytest.approx({"real": 1624, "computed": 2048, "share": 1624 / 2048})
