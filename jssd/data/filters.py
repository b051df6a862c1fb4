"""Which completions are trained on, and what a set of them looks like: counts, lengths, formats.

Rules, in the order they are applied:
  unclosed   only where the loss is on answers: the thinking never ends, so there is no answer. Then
             all rules on texts below read the answer alone. (Ours.)
  empty      the text holds nothing but white space.
  stubs      exactly one line of the text is not blank. The lines of a Markdown fence count, so a
             one-line function in a fence stays. (The paper drops "single-line stubs" and gives no
             exact rule.)
  shortest   sort the lengths of the stripped texts, in characters; the value at index floor(count *
             percent / 100) is the least that stays. Texts of just that length all stay. (The
             released code's rule, at 10 percent.)
  truncated  completions cut at the token limit, with `truncated="drop"`. With "keep" the pipeline
             closes them with the end-of-turn token, as the released pipeline does by storing text
             only; with "no_eos" they are trained as drawn.
  short      fewer tokens than `min_tokens`.
  long       more tokens than `max_tokens`. Ours, like "short": bounds in the unit that a run pays
             for, which another model's samples do not move.
  duplicates the prompt's tokens and the completion's equal an earlier sample's; the first stays.
  format, correct, proxy_model   ask more than a sample's record: see stages/judges.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jssd.config import FilterConfig
from jssd.data.answers import Answers
from jssd.data.samples import Sample

Text = Callable[[Sample], str]
Rule = Callable[[Sequence[Sample]], list[Sample]]  # Those that stay, in order.
JUDGED = ("format", "correct", "proxy_model")


def apply(
    samples: Sequence[Sample],
    config: FilterConfig,
    judges: Mapping[str, Rule] | None = None,
    answers: Answers | None = None,
) -> tuple[list[Sample], dict[str, dict[str, int]]]:
    """The samples that stay, and what each active rule dropped and left, after "read".

    `judges` are the rules of the fields in `JUDGED`, needed where one of these is set; they come
    last, when the others have left less to look at. `answers` makes rules on texts read the answer
    only, and applies rule "unclosed".

    Raises ValueError when nothing stays, saying which rule dropped how many, and with `unclosed`
    "refuse" when there is such a sample.
    """
    rules: list[tuple[str, Rule]] = []
    text: Text = whole_text if answers is None else answers.text
    if answers is not None:
        rules.append(("unclosed", lambda kept: _closed(kept, answers, config.unclosed)))
    if config.drop_empty:
        rules.append(("empty", lambda kept: [s for s in kept if text(s).strip()]))
    if config.drop_stubs:
        rules.append(("stubs", lambda kept: [s for s in kept if not is_stub(text(s))]))
    if config.drop_shortest_percent:
        rules.append(("shortest", lambda kept: _longest(kept, text, config.drop_shortest_percent)))
    if config.truncated == "drop":
        rules.append(("truncated", lambda kept: [s for s in kept if s.finish_reason != "length"]))
    if least := config.min_tokens:
        rules.append(("short", lambda kept: [s for s in kept if len(s.token_ids) >= least]))
    if most := config.max_tokens:
        rules.append(("long", lambda kept: [s for s in kept if len(s.token_ids) <= most]))
    if config.drop_duplicates:
        rules.append(("duplicates", _distinct))
    rules += [(name, (judges or {})[name]) for name in JUDGED if getattr(config, name)]
    kept, counts = list(samples), {"read": {"dropped": 0, "left": len(samples)}}
    for name, rule in rules:
        before, kept = len(kept), rule(kept)
        counts[name] = {"dropped": before - len(kept), "left": len(kept)}
    if not kept:
        told = ", ".join(
            f"{name} {count['dropped']}" for name, count in counts.items() if name != "read"
        )
        raise ValueError(
            f"filter leaves none of {len(samples)} samples. Dropped: {told or 'none'}. Relax the "
            "rule that dropped most, or look at the samples: the model may be too weak or "
            "sampling.temperature too high."
        )
    return kept, counts


def whole_text(sample: Sample) -> str:
    """All of a completion's text, thinking included."""
    return sample.text


def is_stub(text: str) -> bool:
    """Whether exactly one line of `text` is not blank."""
    return sum(bool(line.strip()) for line in text.splitlines()) == 1


def _closed(samples: Sequence[Sample], answers: Answers, unclosed: str) -> list[Sample]:
    kept = [sample for sample in samples if answers.start(sample) is not None]
    if unclosed == "refuse" and len(kept) < len(samples):
        raise ValueError(
            f"{len(samples) - len(kept)} of {len(samples)} samples never end their thinking "
            "(filter.unclosed='refuse'). Sample again with a larger sampling.max_new_tokens, check "
            "train.think_end, or set filter.unclosed='drop'."
        )
    return kept


def _longest(samples: Sequence[Sample], text: Text, percent: float) -> list[Sample]:
    if not samples:
        return []
    lengths = [len(text(sample).strip()) for sample in samples]
    least = sorted(lengths)[math.floor(len(lengths) * percent / 100)]
    return [sample for sample, length in zip(samples, lengths) if length >= least]


def _distinct(samples: Sequence[Sample]) -> list[Sample]:
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], Sample] = {}
    for sample in samples:
        first.setdefault((tuple(sample.prompt_token_ids), tuple(sample.token_ids)), sample)
    return list(first.values())


def stats(samples: Sequence[Sample]) -> dict[str, Any]:
    """What the set looks like, ready for JSON. Shares are of all samples.

    `tokens` and `chars`: count, mean, quantiles and a histogram of completion lengths, whose bins
    are [0], [1], [2, 3], [4, 7], ... and so on by powers of two.
    """
    texts = [sample.text for sample in samples]
    return {
        "samples": len(samples),
        "prompts": len({sample.prompt_id for sample in samples}),
        "distinct": len(_distinct(samples)),
        "tokens": _lengths([len(sample.token_ids) for sample in samples]),
        "chars": _lengths([len(text.strip()) for text in texts]),
        "format": {
            "truncated": _share(sample.finish_reason == "length" for sample in samples),
            "empty": _share(not text.strip() for text in texts),
            "stub": _share(is_stub(text) for text in texts),
            "code_fence": _share("```" in text for text in texts),
            "open_fence": _share(text.count("```") % 2 == 1 for text in texts),
            "text_before_code": _share(
                bool(text.split("```")[0].strip()) and "```" in text for text in texts
            ),
            "defines_function": _share("def " in text for text in texts),
        },
    }


def describe(tree: dict[str, Any]) -> str:
    """The lines a person reads: `stats` as a small table and a histogram of tokens."""
    lines = [
        f"{tree['samples']} samples of {tree['prompts']} prompts, {tree['distinct']} distinct",
        "  ".join(f"{name} {share:.1%}" for name, share in tree["format"].items()),
    ]
    for unit in ("tokens", "chars"):
        part = tree[unit]
        points = "  ".join(f"{name} {part[name]:g}" for name in ("min", "p50", "p90", "p99", "max"))
        lines.append(f"{unit}: mean {part['mean']:.1f}  {points}")
    bins = tree["tokens"]["histogram"]
    most = max((part["count"] for part in bins), default=1)
    for part in bins:
        bar = "#" * math.ceil(40 * part["count"] / most)
        lines.append(f"{part['from']:>7}-{part['to']:<7} {part['count']:>7} {bar}".rstrip())
    return "\n".join(lines)


def _lengths(values: Sequence[int]) -> dict[str, Any]:
    if not values:
        return {
            "sum": 0,
            "mean": 0.0,
            "min": 0,
            "p50": 0.0,
            "p90": 0.0,
            "p99": 0.0,
            "max": 0,
            "histogram": [],
        }
    array = np.asarray(values, np.int64)
    bins = [int(value).bit_length() for value in array]
    quantiles = np.quantile(array, [0.5, 0.9, 0.99])
    return {
        "sum": int(array.sum()),
        "mean": float(array.mean()),
        "min": int(array.min()),
        **{name: float(value) for name, value in zip(("p50", "p90", "p99"), quantiles)},
        "max": int(array.max()),
        "histogram": [
            {"from": (1 << i) >> 1, "to": max((1 << i) - 1, 0), "count": bins.count(i)}
            for i in range(min(bins), max(bins) + 1)
        ],
    }


def _share(flags: Any) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
