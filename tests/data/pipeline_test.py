"""Tests of jssd/data/pipeline.py."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jssd.config import PACKING
from jssd.data import examples, pipeline
from jssd.data.pipeline import Batches
from jssd.data.samples import Sample

EOS = 0  # Also what padding holds: masks must not go by token value.


def sample(n: int, prompt: list[int], tokens: list[int], end: str = "stop", **fields) -> Sample:
    return Sample(
        prompt_id=str(n),
        sample=0,
        prompt="x",
        prompt_token_ids=prompt,
        token_ids=tokens,
        text="t",
        logprobs=[-1.0] * len(tokens),
        support_sizes=fields.get("sizes", []),
        support_ids=fields.get("ids", []),
        support_probs=fields.get("probs", []),
        finish_reason=end,
        sampling={"top_k": fields.get("top_k", 0)},
        seed=0,
        fingerprint="f",
        template="task",
    )


def many(count: int = 23) -> list[Sample]:
    """Samples whose every token tells which sample it is of; lengths from 3 to 9."""
    return [
        sample(n, [100 + n] * (1 + n % 3), [100 + n] * (1 + n % 5) + [EOS]) for n in range(count)
    ]


WIDE = {"seq_len": 512}  # With rungs at 128 and 256.


def uneven(count: int = 23) -> list[Sample]:
    """As `many`, with lengths from 21 to 461."""
    return [sample(n, [100 + n], [100 + n] * (20 * (n + 1)) + [EOS]) for n in range(count)]


def batches(samples: list[Sample], **options: Any) -> Batches:
    settings: dict[str, Any] = {"seq_len": 16, "global_batch_size": 4, "seed": 0} | options
    return Batches(examples.from_samples(samples, settings.pop("eos_id", None)), **settings)


def take(stream: Batches, count: int) -> list[pipeline.Batch]:
    return [next(stream) for _ in range(count)]


def assert_equal(left: list[pipeline.Batch], right: list[pipeline.Batch]) -> None:
    assert [len(batch) for batch in left] == [len(batch) for batch in right]
    for one, other in zip(itertools.chain(*left), itertools.chain(*right)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def joined(parts: list[pipeline.Batch]) -> pipeline.Batch:
    """The whole batch, of the shards of all processes."""
    return [
        {name: np.concatenate([micro[name] for micro in micros]) for name in micros[0]}
        for micros in zip(*parts)
    ]


def seen(found: list[pipeline.Batch]) -> Iterator[int]:
    """The sample behind each segment, in reading order."""
    for micro in itertools.chain(*found):
        for inputs, segments in zip(micro["inputs"], micro["segment_ids"]):
            for segment in range(1, segments.max() + 1):
                yield int(inputs[segments == segment][0]) - 100


def test_a_row_holds_exactly_what_was_drawn():
    one = sample(0, [7, 8], [5, 6, EOS], sizes=[2, -1, 1], ids=[5, 9, EOS], top_k=3)
    two = sample(1, [7], [4], end="length", sizes=[3], ids=[4, 2, 3], top_k=3)
    made = examples.from_samples([one, two], eos_id=EOS)
    row = examples.build_row(made, [0, 1], 8)
    assert row["inputs"].tolist() == [7, 8, 5, 6, 7, 4, 0, 0]
    assert row["targets"].tolist() == [8, 5, 6, EOS, 4, EOS, 0, 0]
    assert row["loss_mask"].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert row["segment_ids"].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]
    assert row["positions"].tolist() == [0, 1, 2, 3, 0, 1, 0, 0]
    assert row["support_ids"].tolist() == [
        [-1, -1, -1],
        [5, 9, -1],
        [-2, -1, -1],
        [EOS, -1, -1],
        [4, 2, 3],
        [-2, -1, -1],
        [-1, -1, -1],
        [-1, -1, -1],
    ]


@pytest.mark.parametrize(
    ("sizes", "top_k", "width"),
    [
        # The law's own bound, whatever was seen: equal for all temperatures.
        ([2, 3], 20, 20),
        ([1, 1], 20, 20),
        ([2, 3], 0, 4),
        ([2, 65], 0, 128),
        ([0, -1], 20, 1),  # The ids were not kept.
        ([2, 21], 20, 32),  # A tie at the edge.
        ([2, 100], 500, 128),
    ],
)
def test_width_of_supports_follows_the_law(sizes, top_k, width):
    drawn = [
        sample(n, [7], [0], sizes=[size], ids=list(range(max(size, 0))), top_k=top_k)
        for n, size in enumerate(sizes)
    ]
    made = examples.from_samples(drawn)
    assert made.support_width == width
    assert examples.build_row(made, [0], 4)["support_ids"].shape == (4, width)


def test_soft_targets_come_with_their_probabilities():
    one = sample(0, [7, 8], [5, EOS], sizes=[2, 1], ids=[5, 9, EOS], probs=[0.75, 0.25, 1.0])
    two = sample(1, [7], [4], end="length", sizes=[2], ids=[4, 3], probs=[0.5, 0.5])
    made = examples.from_samples([one, two], eos_id=EOS, targets="law")
    row = examples.build_row(made, [0, 1], 6)
    assert row["support_ids"].tolist() == [[-1, -1], [5, 9], [EOS, -1], [4, 3], [-2, -1], [-1, -1]]
    assert row["support_probs"].tolist() == [
        [0, 0], [0.75, 0.25], [1, 0], [0.5, 0.5], [0, 0], [0, 0],
    ]  # fmt: skip
    assert "support_probs" not in examples.build_row(examples.from_samples([one]), [0], 6)


@pytest.mark.parametrize("sizes", [[2, -1], [2, 0]])
def test_soft_targets_need_the_law_of_every_draw(sizes):
    whole = sample(0, [7], [5], sizes=[2], ids=[5, 9], probs=[0.75, 0.25])
    part = sample(1, [7], [5, 6], sizes=sizes, ids=[5, 9], probs=[0.75, 0.25])
    bare = sample(2, [7], [5], sizes=[2], ids=[5, 9])
    for lacking, name in ((part, "'1'"), (bare, "'2'")):
        with pytest.raises(ValueError, match=rf"sample 0 of prompt {name} lacks.*keep_law=True"):
            examples.from_samples([whole, lacking], targets="law")


def test_without_a_closing_token_truncated_samples_end_as_drawn():
    cut = sample(0, [7], [4, 3], end="length")
    row = examples.build_row(examples.from_samples([cut]), [0], 4)
    assert row["targets"].tolist() == [4, 3, 0, 0]
    assert row["loss_mask"].tolist() == [1, 1, 0, 0]
    assert row["support_ids"].tolist() == [[-2], [-2], [-1], [-1]]


def test_batches_keep_the_contract():
    (micro,) = next(batches(many()))
    kinds = {name: (array.dtype.name, array.shape) for name, array in micro.items()}
    assert kinds == {
        "inputs": ("int32", (4, 16)),
        "targets": ("int32", (4, 16)),
        "loss_mask": ("float32", (4, 16)),
        "segment_ids": ("int32", (4, 16)),
        "positions": ("int32", (4, 16)),
        "support_ids": ("int32", (4, 16, 1)),
    }


@pytest.mark.parametrize("packing", ["packed", "none"])
def test_every_epoch_shows_every_sample_once_in_a_new_order(packing):
    stream = batches(many(), packing=packing)
    order = list(seen(take(stream, 30)))
    first, second, third = order[:23], order[23:46], order[46:69]
    assert sorted(first) == sorted(second) == sorted(third) == list(range(23))
    assert first != second != third
    assert order == list(seen(take(batches(many(), packing=packing), 30)))
    assert order != list(seen(take(batches(many(), packing=packing, seed=1), 30)))


def test_no_batch_is_partial_and_a_data_set_smaller_than_a_batch_repeats_in_it():
    stream = batches(many(3), packing="none", global_batch_size=8)
    batch = next(stream)
    assert batch[0]["inputs"].shape == (8, 16)
    assert sorted(list(seen([batch]))[:3]) == [0, 1, 2]
    assert stream.get_state()["epoch"] == 2
    assert stream.get_state()["row"] == 2


@pytest.mark.parametrize("packing", PACKING)
def test_a_run_killed_after_any_batch_goes_on_with_the_same_rest(packing):
    expected = take(batches(many(), packing=packing), 14)
    stream = batches(many(), packing=packing)
    for done in range(12):
        state = json.loads(json.dumps(stream.get_state()))
        resumed = batches(many(), packing=packing)
        next(resumed)  # A stream that was already read forgets that.
        resumed.set_state(state)
        assert resumed.get_state() == state
        assert_equal(take(resumed, 2), expected[done : done + 2])
        assert_equal(take(stream, 1), expected[done : done + 1])


@pytest.mark.parametrize("packing", PACKING)
def test_processes_share_each_batch_and_any_number_of_them_can_resume(packing):
    def process(index, count):
        settings = {"packing": packing, "grad_accum": 2, "global_batch_size": 8, **WIDE}
        return batches(uneven(), shards=[index], shard_count=count, **settings)

    whole = process(0, 1)
    expected = take(whole, 6)
    halves = [process(i, 2) for i in range(2)]
    for index in range(3):
        assert_equal([joined([next(half) for half in halves])], [expected[index]])
    state = halves[0].get_state()
    assert state == halves[1].get_state()
    quarters = [process(i, 4) for i in range(4)]
    for quarter in quarters:
        quarter.set_state(state)
    for index in range(3, 6):
        assert_equal([joined([next(quarter) for quarter in quarters])], [expected[index]])


def test_a_process_may_hold_any_shards_of_a_micro_batch():
    (whole,) = next(batches(many(), packing="none"))
    (part,) = next(batches(many(), packing="none", shards=[0, 3], shard_count=4))
    np.testing.assert_array_equal(part["inputs"], whole["inputs"][[0, 3]])


def test_a_bucketed_step_has_the_rows_of_an_unpacked_one_on_shorter_rows():
    settings = {"global_batch_size": 8, "grad_accum": 4, **WIDE}
    plain = batches(uneven(), packing="none", **settings)
    bucketed = batches(uneven(), packing="bucketed", **settings)
    lengths = set()
    for one, other in zip(take(plain, 10), take(bucketed, 10)):
        assert [micro["inputs"].shape for micro in one] == [(2, 512)] * 4
        assert sorted(seen([one])) == sorted(seen([other]))
        rows = {
            int(inputs[0]): (micro, at)
            for micro in one
            for at, inputs in enumerate(micro["inputs"])
        }
        for micro in other:
            length = micro["inputs"].shape[1]
            lengths.add(length)
            for at, inputs in enumerate(micro["inputs"]):
                full, place = rows[int(inputs[0])]
                assert not full["segment_ids"][place, length:].any()
                for name in micro:
                    np.testing.assert_array_equal(micro[name][at], full[name][place, :length])
    assert lengths == {128, 256, 512}


def test_threads_do_not_change_the_order():
    expected = take(batches(many(), threads=1, prefetch=1), 20)
    assert_equal(take(batches(many(), threads=8, prefetch=8), 20), expected)


def test_a_state_of_other_data_or_settings_is_refused():
    state = batches(many()).get_state()
    for other in (
        batches(many(22)),
        batches(many(), seq_len=17),
        batches(many(), seed=1),
        batches(many(), packing="none"),
        batches(many(), packing="bucketed"),
    ):
        with pytest.raises(ValueError, match="trained on other data"):
            other.set_state(state)


def test_a_sample_that_does_not_fit_is_an_error_with_a_way_out():
    fits = sample(0, [7] * 4, [1] * 5)  # Nine tokens make eight pairs of input and target.
    assert next(batches([fits], seq_len=8))[0]["segment_ids"].min() == 1
    message = r"train\.seq_len=8 is too short for 2 of 3 samples; the longest needs 10"
    with pytest.raises(ValueError, match=message):
        batches([fits, sample(1, [7] * 4, [1] * 6), sample(2, [7] * 4, [1] * 7)], seq_len=8)
    with pytest.raises(ValueError, match="too short for 1 of 1"):
        batches([sample(0, [7] * 4, [1] * 5, end="length")], seq_len=8, eos_id=EOS)


def test_what_cannot_be_shared_is_refused():
    message = r"global_batch_size=12 must be a multiple of 8: train\.grad_accum=2 .* split 4 ways"
    with pytest.raises(
        ValueError, match=message + r".* Set train\.global_batch_size=16, a smaller"
    ):
        batches(many(), global_batch_size=12, grad_accum=2, shard_count=4)
    with pytest.raises(ValueError, match="no samples to train on"):
        examples.from_samples([])


def test_report_counts_tokens_and_how_full_rows_are():
    # Two samples of 4 pairs each share a row of 8; three loss tokens each.
    pair = [sample(n, [1, 2], [3, 4, 5]) for n in range(2)]
    report = batches(pair, seq_len=8, global_batch_size=2).report()
    assert json.loads(json.dumps(report)) == report
    assert report["pack_efficiency"] == 1.0
    assert report["rows_per_epoch"] == 1
    assert report["tokens_per_batch"] == 16.0
    assert report["loss_tokens_per_batch"] == 12.0
    assert report["batches_per_epoch"] == 0.5
    assert report["packing"] == "packed"
    assert report["tokens_per_step"] == {
        "packed": {"real": 16, "computed": 16, "share": 1},
        "bucketed": {"real": 8, "computed": 16, "share": 0.5},
        "none": {"real": 8, "computed": 16, "share": 0.5},
    }
    assert batches(pair, seq_len=8, packing="none").report()["pack_efficiency"] == 0.5
