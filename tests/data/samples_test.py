"""Tests of jssd/data/samples.py."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jssd.data import samples
from jssd.data.samples import Sample, SampleWriter

SAMPLING = {"temperature": 1.5, "top_k": 20, "top_p": 0.8, "min_p": 0.0, "max_new_tokens": 4}
SAMPLE = Sample(
    prompt_id="p",
    sample=0,
    prompt="Hi é\n",
    prompt_token_ids=[1, 2],
    token_ids=[5, 6, 7],
    text="ab",
    logprobs=[-0.1, -2.5, 0.0],
    support_sizes=[2, 0, 1],
    support_ids=[5, 9, 7],
    finish_reason="stop",
    sampling=SAMPLING,
    seed=0,
    fingerprint="f",
    template="task",
)


def number(n: int) -> Sample:
    return dataclasses.replace(SAMPLE, sample=n)


def test_the_bytes_of_a_line_are_fixed():
    assert samples.to_line(SAMPLE) == (
        '{"prompt_id":"p","sample":0,"prompt":"Hi é\\n","prompt_token_ids":[1,2],'
        '"token_ids":[5,6,7],"text":"ab","logprobs":[-0.1,-2.5,0.0],"support_sizes":[2,0,1],"support_ids":[5,9,7],'
        '"finish_reason":"stop","sampling":{"temperature":1.5,"top_k":20,"top_p":0.8,"min_p":0.0,'
        '"max_new_tokens":4},"seed":0,"fingerprint":"f","template":"task"}'
    )


def test_laws_are_stored_where_they_were_kept():
    sample = dataclasses.replace(SAMPLE, support_probs=[0.75, 0.25, 1.0])
    line = samples.to_line(sample)
    assert line.endswith('"template":"task","support_probs":[0.75,0.25,1.0]}')
    assert samples.from_line(line, "x:1") == sample
    for probs, message in (
        ([0.75, 0.25], "must hold 3 probabilities"),
        ([0.75, 0.35, 1.0], "must add up to 1 at each token"),
        ([1.5, -0.5, 1.0], "must hold 3 probabilities"),
    ):
        broken = line.replace("[0.75,0.25,1.0]", json.dumps(probs))
        with pytest.raises(ValueError, match=f"x:1: support_probs {message}"):
            samples.from_line(broken, "x:1")


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1),
    st.text(),
)
def test_round_trip_keeps_every_float32_and_every_character(values, text):
    sample = dataclasses.replace(
        SAMPLE,
        token_ids=[3] * len(values),
        logprobs=values,
        support_sizes=[],
        support_ids=[],
        text=text.encode("utf-8", "ignore").decode(),
    )
    line = samples.to_line(sample)
    back = samples.from_line(line, "x:1")
    assert np.array_equal(np.asarray(back.logprobs, np.float32), np.asarray(values, np.float32))
    assert back.text == sample.text
    assert samples.to_line(back) == line
    assert len(line.splitlines()) >= 1 and "\n" not in line


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt_id", 3, "prompt_id must be text"),
        ("sample", True, "sample must be a whole number"),
        ("sample", -1, "sample must be 0 or more"),
        ("token_ids", [], "token_ids must be a list of token ids, not empty"),
        ("token_ids", [5, 6, -7], "token_ids must be"),
        ("logprobs", [-0.1, -2.5], "logprobs must hold 3 finite numbers"),
        ("logprobs", [-0.1, -2.5, 1e999], "logprobs must hold 3 finite numbers"),
        ("support_sizes", [2, 0], "support_sizes must hold 3 sizes"),
        ("support_sizes", [2, -2, 1], "support_sizes must hold 3 sizes"),
        ("support_ids", [5, 9], "support_ids must hold 3 token ids"),
        ("support_ids", [8, 9, 7], "support_ids must hold each token that was drawn"),
        ("finish_reason", "eos", "finish_reason must be 'stop' or 'length'"),
        ("sampling", {"temperature": 1.0}, "sampling must hold the numbers"),
    ],
)
def test_a_corrupt_field_is_named(field, value, message):
    tree = json.loads(samples.to_line(SAMPLE)) | {field: value}
    with pytest.raises(ValueError, match=f"part.jsonl:7: {message}"):
        samples.from_line(json.dumps(tree), "part.jsonl:7")


def test_missing_and_unknown_fields_are_named():
    tree = json.loads(samples.to_line(SAMPLE))
    with pytest.raises(ValueError, match="x:1 has unknown field 'extra'"):
        samples.from_line(json.dumps(tree | {"extra": 1}), "x:1")
    del tree["seed"]
    with pytest.raises(ValueError, match="x:1 lacks field 'seed'"):
        samples.from_line(json.dumps(tree), "x:1")
    with pytest.raises(ValueError, match="x:1 isn't valid JSON"):
        samples.from_line("{", "x:1")


def test_a_writer_resumes_after_a_torn_line_and_ends_with_the_same_bytes(tmp_path):
    whole = tmp_path / "whole" / "part-00000.jsonl"
    with SampleWriter(whole) as writer:
        assert writer.records == []
        writer.write([number(0), number(1)])
        writer.write([number(2)])
        writer.finish()
    expected = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(expected) if byte == 10]
    for cut in (0, 1, ends[0] - 1, ends[0], ends[1] + 5, len(expected)):
        path = tmp_path / f"cut{cut}" / "part-00000.jsonl"
        path.parent.mkdir()
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(expected[:cut])
        with SampleWriter(path) as writer:
            done = len(writer.records)
            assert done == sum(end <= cut for end in ends)
            writer.write(number(n) for n in range(done, 3))
            assert not path.exists()
            writer.finish()
        assert path.read_bytes() == expected
        assert not partial.exists()


def test_a_bad_batch_writes_nothing(tmp_path):
    with SampleWriter(tmp_path / "part-00000.jsonl") as writer:
        with pytest.raises(ValueError, match="sample 'p' number 1: finish_reason"):
            writer.write([number(0), dataclasses.replace(number(1), finish_reason="")])
        writer.write([number(5)])
        writer.finish()
    assert [sample.sample for sample in samples.read_folder(tmp_path)] == [5]


def test_a_corrupt_line_in_the_middle_is_not_dropped(tmp_path):
    partial = tmp_path / "part-00000.jsonl.partial"
    partial.write_text("{}\n" + samples.to_line(SAMPLE) + "\n")
    with pytest.raises(ValueError, match=r"part-00000.jsonl.partial:1 lacks field 'prompt_id'"):
        SampleWriter(tmp_path / "part-00000.jsonl")


def test_a_complete_file_is_not_written_again(tmp_path):
    with SampleWriter(tmp_path / "part-00000.jsonl") as writer:
        writer.write([SAMPLE])
        writer.finish()
    with pytest.raises(FileExistsError, match="is complete"):
        SampleWriter(tmp_path / "part-00000.jsonl")


def test_read_folder_merges_parts_in_order(tmp_path):
    for part, n in ((1, 0), (0, 1)):
        with SampleWriter(tmp_path / f"part-0000{part}.jsonl") as writer:
            writer.write([number(n)])
            writer.finish()
    assert [sample.sample for sample in samples.read_folder(tmp_path)] == [1, 0]
    with SampleWriter(tmp_path / "part-00002.jsonl") as writer:
        writer.write([number(0)])
        with pytest.raises(ValueError, match="sampling isn't finished"):
            samples.read_folder(tmp_path)
        writer.finish()
    with pytest.raises(ValueError, match=r"part-00002.jsonl:1: prompt 'p' sample 0 is also at .*1"):
        samples.read_folder(tmp_path)


def test_a_changed_file_is_named(tmp_path):
    for name in ("part-00000.jsonl", "part-00001.jsonl"):
        with SampleWriter(tmp_path / name) as writer:
            writer.write([number(0), number(1)])
            writer.finish()
    parts = samples.list_parts(tmp_path)
    assert [(part["file"], part["records"]) for part in parts] == [
        ("part-00000.jsonl", 2),
        ("part-00001.jsonl", 2),
    ]
    samples.verify(tmp_path, parts)
    path = tmp_path / "part-00001.jsonl"
    data = bytearray(path.read_bytes())
    data[40] ^= 1  # One flipped bit.
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"part-00001\.jsonl changed since sampling ended"):
        samples.verify(tmp_path, parts)
    path.unlink()
    with pytest.raises(ValueError, match=r"part-00001\.jsonl changed"):
        samples.verify(tmp_path, parts)


def test_read_folder_without_samples_names_the_stage(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run stage sample first"):
        samples.read_folder(tmp_path)
    (tmp_path / "part-00000.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"part-00000.jsonl:1 isn't valid UTF-8"):
        samples.read_folder(tmp_path)
