"""Tests of jssd/data/filters.py."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jssd.config import Config, FilterConfig, ModelSource, PromptsConfig
from jssd.data import filters
from jssd.data.samples import Sample
from jssd.rules import validate

OFF = FilterConfig(drop_empty=False, drop_stubs=False)


def sample(text: str, *, n: int = 0, tokens: tuple[int, ...] = (), end: str = "stop") -> Sample:
    ids = list(tokens or (1, 2))
    return Sample(
        prompt_id="p",
        sample=n,
        prompt="x",
        prompt_token_ids=[0],
        token_ids=ids,
        text=text,
        logprobs=[-1.0] * len(ids),
        support_sizes=[],
        support_ids=[],
        finish_reason=end,
        sampling={},
        seed=0,
        fingerprint="f",
        template="task",
    )


def texts(kept: list[Sample]) -> list[str]:
    return [one.text for one in kept]


@pytest.mark.parametrize(
    ("text", "stub"),
    [
        ("", False),
        ("pass", True),
        ("\n  pass \n\n", True),
        ("def f(x):\n    return x", False),
        ("```python\nf = 1\n```", False),
    ],
)
def test_a_stub_has_exactly_one_line_that_is_not_blank(text, stub):
    assert filters.is_stub(text) is stub


def test_the_papers_filter_drops_empty_answers_and_stubs_and_counts_both():
    given_samples = [sample(text) for text in ("a\nb", " \n", "x", "", "c\nd")]
    kept, counts = filters.apply(given_samples, FilterConfig())
    assert texts(kept) == ["a\nb", "c\nd"]
    assert counts == {
        "read": {"dropped": 0, "left": 5},
        "empty": {"dropped": 2, "left": 3},
        "stubs": {"dropped": 1, "left": 2},
    }
    kept, counts = filters.apply(given_samples, dataclasses.replace(OFF, drop_stubs=True))
    assert texts(kept) == ["a\nb", " \n", "", "c\nd"]


def test_the_shortest_go_by_the_value_at_the_floor_index_and_ties_stay():
    # Sorted stripped lengths 1 2 2 3 4; index floor(5 * 0.40) = 2 holds 2: only the 1 goes.
    given_samples = [sample(text) for text in ("bb ", "a", "dddd", "cc", "eee")]
    config = dataclasses.replace(OFF, drop_shortest_percent=40.0)
    assert texts(filters.apply(given_samples, config)[0]) == ["bb ", "dddd", "cc", "eee"]
    config = dataclasses.replace(OFF, drop_shortest_percent=10.0)  # Index 0: nothing is shorter.
    assert len(filters.apply(given_samples, config)[0]) == 5


@given(st.lists(st.text("ab ", max_size=8), min_size=1), st.floats(0, 99.9))
def test_the_shortest_rule_never_drops_more_than_its_share_nor_everything(words, percent):
    config = dataclasses.replace(OFF, drop_shortest_percent=percent)
    kept, _ = filters.apply([sample(word) for word in words], config)
    assert len(kept) >= 1
    assert len(words) - len(kept) <= len(words) * percent / 100
    lengths = {len(word.strip()) for word in words} - {len(text.strip()) for text in texts(kept)}
    assert all(length < min(len(text.strip()) for text in texts(kept)) for length in lengths)


def test_truncated_samples_stay_unless_told_to_go():
    given_samples = [sample("a\nb"), sample("c\nd", end="length")]
    for truncated, left in (("keep", 2), ("no_eos", 2), ("drop", 1)):
        kept, _ = filters.apply(given_samples, FilterConfig(truncated=truncated))
        assert len(kept) == left


def test_lengths_in_tokens_have_a_least_and_a_most_that_both_stay():
    given_samples = [sample("a", n=n, tokens=(1,) * n) for n in (1, 2, 3, 4)]
    config = dataclasses.replace(OFF, min_tokens=2, max_tokens=3)
    kept, counts = filters.apply(given_samples, config)
    assert [one.sample for one in kept] == [2, 3]
    assert counts["short"] == {"dropped": 1, "left": 3}
    assert counts["long"] == {"dropped": 1, "left": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": -1}, "min_tokens=-1 must be 0"),
        ({"max_tokens": -1}, "max_tokens=-1 must be 0"),
        ({"min_tokens": 3, "max_tokens": 2}, "max_tokens=2 must be .* filter.min_tokens=3"),
    ],
)
def test_bounds_that_leave_nothing_are_refused(settings, message):
    config = Config(model=ModelSource("m"), prompts=PromptsConfig(source="tasks:train"))
    config.filter = FilterConfig(**settings)
    with pytest.raises(ValueError, match=message):
        validate(config)


def test_duplicates_are_the_same_tokens_not_the_same_text():
    given_samples = [
        sample("a", n=0),
        sample("a", n=1, tokens=(3,)),
        sample("b", n=2),
    ]
    kept, counts = filters.apply(given_samples, dataclasses.replace(OFF, drop_duplicates=True))
    assert [one.sample for one in kept] == [0, 1]
    assert counts["duplicates"] == {"dropped": 1, "left": 2}


def test_nothing_left_says_which_rule_took_how_many():
    given_samples = [sample(""), sample("x"), sample("a\nb", end="length")]
    message = "leaves none of 3 samples. Dropped: empty 1, stubs 1, shortest 0, truncated 1"
    with pytest.raises(ValueError, match=message):
        filters.apply(given_samples, FilterConfig(truncated="drop", drop_shortest_percent=10.0))


def test_stats_count_what_a_person_would_count():
    given_samples = [
        sample("Here:\n```python\ndef f(): ...\n```", tokens=(1,) * 5),
        sample("```\nx", tokens=(1,) * 4, end="length"),
        sample("pass", tokens=(1, 2, 3)),
        sample("", tokens=(1,)),
    ]
    tree = filters.stats(given_samples)
    assert json.loads(json.dumps(tree)) == tree
    assert tree["tokens"]["sum"] == 13
    assert tree["tokens"]["histogram"] == [
        {"from": 1, "to": 1, "count": 1},
        {"from": 2, "to": 3, "count": 1},
        {"from": 4, "to": 7, "count": 2},
    ]
    assert tree["chars"]["histogram"][0] == {"from": 0, "to": 0, "count": 1}
    assert tree["format"] == {
        "truncated": 0.25,
        "empty": 0.25,
        "stub": 0.25,
        "code_fence": 0.5,
        "open_fence": 0.25,
        "text_before_code": 0.25,
        "defines_function": 0.25,
    }
    told = filters.describe(tree)
    assert "4 samples of 1 prompts, 4 distinct" in told
    assert told.splitlines()[-1].split() == ["4-7", "2", "#" * 40]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=50))
def test_every_length_falls_in_exactly_one_bin(lengths):
    bins = filters.stats([sample("a", tokens=(1,) * n) for n in lengths])["tokens"]["histogram"]
    for part in bins:
        assert part["count"] == sum(part["from"] <= n <= part["to"] for n in lengths)
    assert sum(part["count"] for part in bins) == len(lengths)


def test_stats_of_nothing_are_zeros():
    assert filters.stats([])["tokens"]["sum"] == 0
    assert "0 samples" in filters.describe(filters.stats([]))
