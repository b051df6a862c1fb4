"""Samples as rows of a batch: token ids, which are in the loss, what each draw came from."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from jssd.config import MAX_SUPPORT
from jssd.data.answers import Answers
from jssd.data.samples import Sample

UNKNOWN_SUPPORT = -2
_NO_ID = -1


@dataclasses.dataclass(frozen=True)
class Examples:
    """Tokenised samples, flat: sample i owns `tokens[starts[i]:starts[i + 1]]`, prompt first.

    tokens int32 [total]; starts int64 [samples + 1]; context_lens int64 [samples], the tokens
    before those in the loss: of the prompt, and of the thinking where it is left out.
    `support_sizes` int32 [total] and `support_starts` int64 [total] place each token's support in
    `support_ids` int32; a size of 0 or less is unknown. `support_width` has room for each of them,
    at least 1, and does not change with the law's temperature where it has a top_k: programs are
    compiled for it. `support_probs` float32 are the law's probabilities of `support_ids`, with soft
    targets only.
    """

    tokens: np.ndarray
    starts: np.ndarray
    context_lens: np.ndarray
    support_sizes: np.ndarray
    support_starts: np.ndarray
    support_ids: np.ndarray
    support_width: int
    support_probs: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Row space of each sample [samples] int64: all tokens but the last, a target only."""
        return np.diff(self.starts) - 1

    def digest(self) -> str:
        """Short hash of tokens and boundaries: equal for equal training data."""
        parts = (self.tokens, self.starts, self.context_lens)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def from_samples(
    samples: Sequence[Sample],
    eos_id: int | None = None,
    *,
    targets: str = "draw",
    answers: Answers | None = None,
) -> Examples:
    """The stored token ids of `samples`, nothing tokenised again.

    `eos_id` closes completions that were cut at the token limit (filter.truncated="keep"); its
    support is unknown. None trains them as drawn. With `targets` "law" the examples hold the law of
    each draw. `answers` puts the loss on the answer only; all `samples` must have one, as
    `filters.apply` sees to. Raises ValueError without samples, or without the laws that are asked
    for.
    """
    if not samples:
        raise ValueError("there are no samples to train on. Run stage sample, or relax the filter.")
    tokens, sizes, supports = [], [], []
    for sample in samples:
        close = [eos_id] if eos_id is not None and sample.finish_reason == "length" else []
        stored = sample.support_sizes or [0] * len(sample.token_ids)
        tokens.append(np.asarray(sample.prompt_token_ids + sample.token_ids + close, np.int32))
        sizes.append(
            np.asarray([0] * len(sample.prompt_token_ids) + stored + [0] * len(close), np.int32)
        )
        supports.append(np.asarray(sample.support_ids, np.int32))
    support_sizes = np.concatenate(sizes)
    stored_sizes = np.maximum(support_sizes, 0).astype(np.int64)
    return Examples(
        tokens=np.concatenate(tokens),
        starts=np.cumsum([0] + [len(ids) for ids in tokens], dtype=np.int64),
        context_lens=np.asarray([_context_len(sample, answers) for sample in samples], np.int64),
        support_sizes=support_sizes,
        support_starts=np.cumsum(stored_sizes) - stored_sizes,
        support_ids=np.concatenate(supports),
        support_width=_width(samples, int(stored_sizes.max())),
        support_probs=_laws(samples) if targets == "law" else None,
    )


def _context_len(sample: Sample, answers: Answers | None) -> int:
    thinking = 0 if answers is None else answers.start(sample)
    assert thinking is not None, "filters.apply lets none without an answer through"
    return len(sample.prompt_token_ids) + thinking


def _width(samples: Sequence[Sample], largest: int) -> int:
    """Room for supports of up to `largest` tokens: the law's top_k, where all samples have one, or
    the next power of two. What is seen depends on temperature and chance, these hardly."""
    if largest < 1:
        return 1
    cuts = [int(sample.sampling.get("top_k", 0)) for sample in samples]
    if min(cuts) > 0 and largest <= max(cuts) < MAX_SUPPORT:
        return max(cuts)
    return 1 << (largest - 1).bit_length()


def _laws(samples: Sequence[Sample]) -> np.ndarray:
    """The law of every draw, flat. An average over draws and laws would be no expectation of
    either, so a sample that lacks one is refused."""
    for sample in samples:
        if not sample.support_probs or min(sample.support_sizes) <= 0:
            raise ValueError(
                f"train.targets='law' needs the law of every draw, and sample {sample.sample} of "
                f"prompt {sample.prompt_id!r} lacks some. Sample again with engine.keep_law=True "
                f"and sampling.top_k of 1 to {MAX_SUPPORT - 1}, or set train.targets='draw'."
            )
    return np.concatenate([np.asarray(sample.support_probs, np.float32) for sample in samples])


def build_row(examples: Examples, row: Sequence[int], seq_len: int) -> dict[str, np.ndarray]:
    """One row [seq_len] of a batch as in `Batches`, holding the samples `row` one by one."""
    out = {
        "inputs": np.zeros(seq_len, np.int32),
        "targets": np.zeros(seq_len, np.int32),
        "loss_mask": np.zeros(seq_len, np.float32),
        "segment_ids": np.zeros(seq_len, np.int32),
        "positions": np.zeros(seq_len, np.int32),
        "support_ids": np.full((seq_len, examples.support_width), _NO_ID, np.int32),
    }
    if examples.support_probs is not None:
        out["support_probs"] = np.zeros((seq_len, examples.support_width), np.float32)
    at = 0
    for segment, sample in enumerate(row, 1):
        start, end = examples.starts[sample], examples.starts[sample + 1]
        length = int(end - start) - 1
        here = slice(at, at + length)
        out["inputs"][here] = examples.tokens[start : end - 1]
        out["targets"][here] = examples.tokens[start + 1 : end]
        # By position, never by token value: the padding id often is the end-of-turn id.
        in_loss = slice(at + int(examples.context_lens[sample]) - 1, at + length)
        out["loss_mask"][in_loss] = 1
        out["segment_ids"][here] = segment
        out["positions"][here] = np.arange(length)
        first = start + examples.context_lens[sample]
        known, inside = _known(examples, int(first), int(end))
        ids = np.full(inside.shape, _NO_ID, np.int32)
        ids[inside] = examples.support_ids[known]
        ids[~inside[:, 0], 0] = UNKNOWN_SUPPORT
        out["support_ids"][in_loss] = ids
        if examples.support_probs is not None:
            out["support_probs"][in_loss][inside] = examples.support_probs[known]
        at += length
    return out


def _known(examples: Examples, first: int, end: int) -> tuple[slice, np.ndarray]:
    """Where the supports of tokens first to end are stored, and their places in a table
    [end - first, support_width] of such tokens."""
    sizes = np.maximum(examples.support_sizes[first:end], 0)
    begin = examples.support_starts[first]
    inside = np.arange(examples.support_width) < sizes[:, None]
    return slice(begin, begin + int(sizes.sum())), inside
