"""Tests of jssd/data/answers.py: where answers begin; the loss and the filters go by that."""

import dataclasses

import numpy as np
import pytest

from jssd.config import PACKING, Config, FilterConfig, ModelSource, PromptsConfig, TrainConfig
from jssd.data import contexts, examples, filters, samples
from jssd.data.answers import Answers
from jssd.data.pipeline import Batches
from jssd.data.tokenizer import Tokenizer
from jssd.rules import validate
from tests.data.filters_test import OFF, texts
from tests.data.pipeline_test import sample

OPEN, CLOSE, END = 259, 260, 257  # <think>, </think>, <|im_end|>
THINK = {"259": {"content": "<think>"}, "260": {"content": "</think>"}}
A, B, NEWLINE = 32, 33, 198  # Any bytes, and one of white space (checked below).


@pytest.fixture
def tokenizer(make_folder) -> Tokenizer:
    config = {"eos_token": "<|im_end|>", "added_tokens_decoder": THINK}
    made = Tokenizer(make_folder(config=config))
    assert made.encode("<think></think><|im_end|>\n") == [OPEN, CLOSE, END, NEWLINE]
    return made


@pytest.fixture
def answers(tokenizer) -> Answers:
    return Answers(tokenizer, "</think>")


@pytest.mark.parametrize(
    ("prompt", "completion", "start"),
    [
        ([A], [OPEN, B, CLOSE, A, END], 3),  # The model opens its thinking.
        ([A, OPEN], [B, CLOSE, A, END], 2),  # The template does.
        ([A, OPEN], [CLOSE, A, END], 1),
        ([A, OPEN], [B, CLOSE, B, CLOSE, A, END], 4),  # The last marker counts.
        ([A, OPEN], [B, B, B], None),
        ([A, OPEN], [B, CLOSE], None),  # Cut right behind it: no token of the answer.
        ([OPEN, CLOSE, NEWLINE], [A, END], 0),  # Thinking switched off in the prompt.
        ([CLOSE, B], [A, END], None),  # The prompt only speaks of the marker.
    ],
)
def test_the_answer_begins_behind_the_marker(answers, prompt, completion, start):
    assert answers.start(sample(0, prompt, completion)) == start


def test_a_marker_of_several_tokens_is_found_whole(tokenizer):
    answers = Answers(tokenizer, "</think>\n<|im_start|>")
    assert answers.start(sample(0, [A], [CLOSE, A, CLOSE, NEWLINE, 256, B])) == 5
    assert answers.start(sample(0, [A], [CLOSE, A, NEWLINE, 256, B])) is None


def test_a_marker_that_is_no_token_is_refused(make_folder):
    with pytest.raises(ValueError, match=r"think_end='</think>' is no token of .*'<', '/', 't'"):
        Answers(Tokenizer(make_folder()), "</think>")
    with pytest.raises(ValueError, match=r"spelled with '<\|im_end\|>', 'x'"):
        Answers(Tokenizer(make_folder()), "<|im_end|>x")


def test_only_the_answer_is_in_the_loss(answers):
    one = sample(
        0, [A], [B, CLOSE, A, END], sizes=[1, 1, 2, 1], ids=[B, CLOSE, A, B, END],
        probs=[1, 1, 0.75, 0.25, 1],
    )  # fmt: skip
    cut = sample(1, [A], [CLOSE, B], end="length", sizes=[1, 1], ids=[CLOSE, B], probs=[1, 1])
    made = examples.from_samples([one, cut], END, targets="law", answers=answers)
    row = examples.build_row(made, [0, 1], 9)
    assert row["inputs"].tolist() == [A, B, CLOSE, A, A, CLOSE, B, 0, 0]
    assert row["targets"].tolist() == [B, CLOSE, A, END, CLOSE, B, END, 0, 0]
    assert row["loss_mask"].tolist() == [0, 0, 1, 1, 0, 1, 1, 0, 0]
    assert row["segment_ids"].tolist() == [1, 1, 1, 1, 2, 2, 2, 0, 0]
    assert row["support_ids"].tolist() == [
        [-1, -1], [-1, -1], [A, B], [END, -1], [-1, -1], [B, -1], [-2, -1], [-1, -1], [-1, -1],
    ]  # fmt: skip
    assert row["support_probs"].tolist() == [
        [0, 0], [0, 0], [0.75, 0.25], [1, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 0],
    ]  # fmt: skip
    whole = examples.from_samples([one, cut], END, targets="law")
    assert whole.digest() != made.digest()  # A checkpoint of the one does not go on with the other.


@pytest.mark.parametrize("packing", PACKING)
def test_every_packing_has_the_same_tokens_in_the_loss(answers, packing):
    drawn = [sample(n, [A], [n] * (n + 1) + [CLOSE] + [100 + n] * 2 + [END]) for n in range(5)]
    made = examples.from_samples(drawn, answers=answers)
    stream = Batches(made, seq_len=32, global_batch_size=1, seed=0, packing=packing)
    rows = stream.report()["rows_per_epoch"]
    found = [micro for _ in range(rows) for micro in next(stream)]
    in_loss = np.concatenate([micro["targets"][micro["loss_mask"] == 1] for micro in found])
    assert sorted(in_loss) == sorted([100, 101, 102, 103, 104] * 2 + [END] * 5)
    assert stream.report()["loss_tokens_per_epoch"] == 15


def spoken(tokenizer: Tokenizer, n: int, text: str):
    one = sample(n, [A, OPEN], [*tokenizer.encode(text), END])
    return dataclasses.replace(one, text=text)


def test_filters_read_the_answer_and_count_what_has_none(tokenizer, answers):
    think = "a\nb\n</think>"
    drawn = [
        spoken(tokenizer, n, text)
        for n, text in enumerate((think + "c\nd", think + "\n\n", think + "c", "a\nb\nc"))
    ]
    kept, counts = filters.apply(drawn, FilterConfig(), answers=answers)
    assert texts(kept) == [think + "c\nd"]
    assert {name: count["dropped"] for name, count in counts.items()} == {
        "read": 0, "unclosed": 1, "empty": 1, "stubs": 1,
    }  # fmt: skip
    # Of the answers' lengths 3 0 1, not of the texts': the value at floor(3 * 0.5) is 1.
    kept, _ = filters.apply(
        drawn, dataclasses.replace(OFF, drop_shortest_percent=50.0), answers=answers
    )
    assert [one.prompt_id for one in kept] == ["0", "2"]
    assert len(filters.apply(drawn, FilterConfig())[0]) == 4  # By themselves all are long enough.
    with pytest.raises(ValueError, match=r"1 of 4 samples never end .*max_new_tokens"):
        filters.apply(drawn, dataclasses.replace(OFF, unclosed="refuse"), answers=answers)


def test_contexts_to_look_at_are_the_answers(tmp_path, tokenizer, answers):
    drawn = [sample(0, [A, OPEN], [B, CLOSE, A, END]), sample(1, [A, OPEN], [B, B])]
    drawn = [
        dataclasses.replace(one, sampling=dict.fromkeys(samples._SAMPLING, 1)) for one in drawn
    ]
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "part-00000.jsonl").write_text("".join(samples.to_line(one) + "\n" for one in drawn))
    [found] = contexts.read(folder, tokenizer, "raw", answers)
    assert (found.prompt_ids, found.completion_ids) == ([A, OPEN, B, CLOSE], [A, END])
    assert len(contexts.read(folder, tokenizer, "raw")) == 2


@pytest.mark.parametrize(
    ("section", "field", "value", "told"),
    [
        ("train", "loss_on", "answers", "must be one of response, answer"),
        ("train", "think_end", "</thought>", r"needs train\.loss_on='answer'"),
        ("train", "think_end", "", "must be the text of a token"),
        ("filter", "unclosed", "refuse", r"needs train\.loss_on='answer'"),
        ("filter", "unclosed", "keep", "must be one of drop, refuse"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(section, field, value, told):
    config = Config(
        model=ModelSource("m"), prompts=PromptsConfig(source="tasks:train"), train=TrainConfig()
    )
    validate(config)
    setattr(getattr(config, section), field, value)
    with pytest.raises(ValueError, match=rf"{section}\.{field}='{value}' {told}"):
        validate(config)
    if told.startswith("needs"):
        config.train.loss_on = "answer"
        validate(config)
