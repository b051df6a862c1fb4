"""Tests of jssd/data/packing.py."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jssd.data import packing

LENGTHS = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(LENGTHS, st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_each_sample_is_on_exactly_one_row_and_no_row_overflows(lengths, seed, epoch, pack):
    rows = packing.rows(np.array(lengths), 16, seed=seed, epoch=epoch, packing=pack)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(sum(lengths[sample] for sample in row) <= 16 for row in rows)
    if not pack:
        assert all(len(row) == 1 for row in rows)


@given(LENGTHS)
def test_first_fit_leaves_at_most_one_row_half_empty(lengths):
    # Two rows at most half full would have shared one row.
    rows = packing.rows(np.array(lengths), 16, seed=0, epoch=0, packing=True)
    assert sum(sum(lengths[sample] for sample in row) <= 8 for row in rows) <= 1


def test_the_order_never_changes():
    # The order of a run under way must survive a NumPy upgrade: these are frozen.
    assert packing.order(6, 0, 0).tolist() == [0, 3, 5, 1, 2, 4]
    plan = packing.rows(np.full(6, 3), 6, seed=0, epoch=0, packing=True)
    assert plan == [[5, 1], [2, 4], [0, 3]]


def test_order_differs_by_seed_epoch_and_stream():
    orders = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({tuple(packing.order(20, *key)) for key in orders}) == 4


def test_a_row_that_left_the_open_rows_takes_no_more(monkeypatch):
    monkeypatch.setattr(packing, "_OPEN_ROWS", 2)
    monkeypatch.setattr(packing, "order", lambda count, *args, **kwargs: np.arange(count))
    # Rows 0 to 2 hold 3 of 4 each; when row 2 opens, row 0 closes, so the first 1 goes to row 1.
    rows = packing.rows(np.array([3, 3, 3, 1, 1, 1]), 4, seed=0, epoch=0, packing=True)
    assert rows == [[0], [1, 3], [2, 4], [5]]
