"""Whose share of the prompts is drawn."""

import pytest

from jssd.stages import drawing


@pytest.mark.parametrize(("count", "whole"), [(1, True), (2, False)], ids=["shard", "host"])
def test_hosts_load_weights_while_any_of_them_draws_and_shards_for_themselves(
    tmp_path, monkeypatch, count, whole
):
    monkeypatch.setattr(drawing.jax, "process_count", lambda: count)
    first, second = (drawing.Share(index, 2) for index in range(2))
    first.part(tmp_path).write_text("")
    assert first.is_drawn(tmp_path) and not second.is_drawn(tmp_path)
    assert first.is_drawn_by_all(tmp_path) is whole
    assert not second.is_drawn_by_all(tmp_path)
    second.part(tmp_path).write_text("")
    assert first.is_drawn_by_all(tmp_path) and second.is_drawn_by_all(tmp_path)


def test_shares_that_are_taken_up_are_all_there(tmp_path):
    taken = drawing.Share(0, 1, taken=3)
    assert taken.is_drawn(tmp_path) and taken.is_drawn_by_all(tmp_path)
