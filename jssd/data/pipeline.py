"""Samples to training batches, with a loss on response tokens only. Read ahead by Grain.

The order of rows is planned per epoch as a pure function of the data, the seed and the epoch, and
epochs follow one another without end and without a gap: a batch may hold the last rows of one and
the first of the next. So a position is just (epoch, row), whatever the number of processes, and a
resumed run sees exactly the rest.
"""

import bisect
import dataclasses
import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from jssd.config import PACKING
from jssd.data import packing as plan
from jssd.data.samples import Sample

UNKNOWN_SUPPORT = -2
_NO_ID = -1


@dataclasses.dataclass(frozen=True)
class Examples:
    """Tokenised samples, flat: sample i owns `tokens[starts[i]:starts[i + 1]]`, prompt first.

    tokens int32 [total]; starts int64 [samples + 1]; prompt_lens int64 [samples]. `support_sizes`
    int32 [total] and `support_starts` int64 [total] place each token's support in `support_ids`
    int32; a size of 0 or less is unknown. `support_width` is the largest size, at least 1.
    `support_probs` float32 are the law's probabilities of `support_ids`, with soft targets only.
    """

    tokens: np.ndarray
    starts: np.ndarray
    prompt_lens: np.ndarray
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
        parts = (self.tokens, self.starts, self.prompt_lens)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def from_samples(
    samples: Sequence[Sample], eos_id: int | None = None, *, targets: str = "draw"
) -> Examples:
    """The stored token ids of `samples`, nothing tokenised again.

    `eos_id` closes completions that were cut at the token limit (filter.truncated="keep"); its
    support is unknown. None trains them as drawn. With `targets` "law" the examples hold the law of
    each draw. Raises ValueError without samples, or without the laws that are asked for.
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
        prompt_lens=np.asarray([len(sample.prompt_token_ids) for sample in samples], np.int64),
        support_sizes=support_sizes,
        support_starts=np.cumsum(stored_sizes) - stored_sizes,
        support_ids=np.concatenate(supports),
        support_width=max(int(stored_sizes.max()), 1),
        support_probs=_laws(samples) if targets == "law" else None,
    )


def _laws(samples: Sequence[Sample]) -> np.ndarray:
    """The law of every draw, flat. An average over draws and laws would be no expectation of
    either, so a sample that lacks one is refused."""
    for sample in samples:
        if not sample.support_probs or min(sample.support_sizes) <= 0:
            raise ValueError(
                f"train.targets='law' needs the law of every draw, and sample {sample.sample} of "
                f"prompt {sample.prompt_id!r} lacks some. Sample again with engine.keep_law=True "
                "and a law of at most 128 tokens (sampling.top_k), or set train.targets='draw'."
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
        response = slice(at + int(examples.prompt_lens[sample]) - 1, at + length)
        out["loss_mask"][response] = 1
        out["segment_ids"][here] = segment
        out["positions"][here] = np.arange(length)
        first = start + examples.prompt_lens[sample]
        known, inside = _known(examples, int(first), int(end))
        ids = np.full(inside.shape, _NO_ID, np.int32)
        ids[inside] = examples.support_ids[known]
        ids[~inside[:, 0], 0] = UNKNOWN_SUPPORT
        out["support_ids"][response] = ids
        if examples.support_probs is not None:
            out["support_probs"][response][inside] = examples.support_probs[known]
        at += length
    return out


def _known(examples: Examples, first: int, end: int) -> tuple[slice, np.ndarray]:
    """Where the supports of tokens first to end are stored, and their places in a table
    [end - first, support_width] of such tokens."""
    sizes = np.maximum(examples.support_sizes[first:end], 0)
    begin = examples.support_starts[first]
    inside = np.arange(examples.support_width) < sizes[:, None]
    return slice(begin, begin + int(sizes.sum())), inside


Batch = list[dict[str, np.ndarray]]


class Batches(Iterator[Batch]):
    """Endless batches, each the list of its `grad_accum` micro-batches: this process's rows of
    them, as arrays [rows, T].

    inputs, targets int32: a token and the one after it. loss_mask float32: 1 where the target is a
    completion token. segment_ids int32: 1, 2, ... per row; 0 is padding. positions int32: from 0 in
    each segment. support_ids int32 [rows, T, S]: the ids the target could have been drawn from,
    padded with -1; -2 first where unknown; all -1 where loss_mask is 0. S is the data set's largest
    support. With soft targets support_probs float32 [rows, T, S], their probabilities, 0 elsewhere.

    T is `seq_len`; with packing "bucketed" it differs by micro-batch, alike on all processes (see
    `packing.micro_batches`). The rows of a micro-batch are cut into `shard_count` equal shards, and
    a process gets those named in `shards`, in order.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        seq_len: int,
        global_batch_size: int,
        seed: int,
        packing: str = "packed",
        grad_accum: int = 1,
        shards: Sequence[int] = (0,),
        shard_count: int = 1,
        threads: int = 2,
        prefetch: int = 2,
    ):
        """`prefetch` batches are built ahead by `threads`.

        Raises ValueError when a sample exceeds `seq_len`, or a batch can't be cut evenly.
        """
        self._lengths = lengths = examples.lengths
        if lengths.max() > seq_len:
            longest = int(lengths.max())
            raise ValueError(
                f"train.seq_len={seq_len} is too short for {int((lengths > seq_len).sum())} of "
                f"{len(lengths)} samples; the longest needs {longest}. Set "
                f"train.seq_len={longest} or more, or sample again with a smaller "
                "sampling.max_new_tokens, or set filter.truncated='drop' if those are the long "
                "ones."
            )
        plan.check_cut(global_batch_size, grad_accum, shard_count)
        self.global_batch_size = global_batch_size
        self._seed, self._packing, self._grad_accum = seed, packing, grad_accum
        self._rows = _Rows(examples, seq_len, seed, packing)
        self._shards, self._shard_count = shards, shard_count
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        # All that decides which tokens come at a position: not process count nor batch size.
        self._data = f"{examples.digest()}-{seq_len}-{seed}-{packing}"
        self._start(0, 0)

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._done += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch taken, ready for JSON: the same on every process."""
        epoch, row = self._rows.locate(self._done * self.global_batch_size)
        return {"epoch": epoch, "row": row, "data": self._data}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from `get_state`, with any process count, batch size and grad_accum.

        Raises ValueError when the state is of other data, seed, seq_len or packing.
        """
        if state["data"] != self._data:
            raise ValueError(
                "the checkpoint was trained on other data (samples-seq_len-seed-packing "
                f"{state['data']}, now {self._data}). Restore the samples and the train section, "
                "or start with a fresh workdir."
            )
        self._start(int(state["epoch"]), int(state["row"]))

    def report(self) -> dict[str, Any]:
        """Sizes of the first epoch, ready for JSON: what a batch holds, and what it costs.

        `pack_efficiency` is the share of computed tokens that are not padding; `tokens_per_step`
        is `packing.tokens_per_step` of every mode, to compare with the one in force, `packing`.
        """
        examples, rows = self._rows.examples, self._rows.count(0)
        tokens = int(self._lengths.sum())
        loss_tokens = int((np.diff(examples.starts) - examples.prompt_lens).sum())
        modes = {
            mode: plan.tokens_per_step(
                self._lengths,
                self._rows.seq_len,
                seed=self._seed,
                global_batch_size=self.global_batch_size,
                grad_accum=self._grad_accum,
                packing=mode,
            )
            for mode in PACKING
        }
        return {
            "samples": len(examples.prompt_lens),
            "longest": int(self._lengths.max()),
            "tokens_per_epoch": tokens,
            "loss_tokens_per_epoch": loss_tokens,
            "rows_per_epoch": rows,
            "batches_per_epoch": rows / self.global_batch_size,
            "samples_per_row": len(examples.prompt_lens) / rows,
            "packing": self._packing,
            "pack_efficiency": modes[self._packing]["share"],
            "tokens_per_step": modes,
            "tokens_per_batch": tokens / rows * self.global_batch_size,
            "loss_tokens_per_batch": loss_tokens / rows * self.global_batch_size,
            "support_width": examples.support_width,
        }

    def close(self) -> None:
        """Stops the reading threads."""
        self._iterator.close()

    def _start(self, epoch: int, row: int) -> None:
        if hasattr(self, "_iterator"):
            self.close()
        self._rows.rebase(epoch, row)
        self._done = 0
        batches = grain.MapDataset.range(_ENDLESS).map(self._read)
        self._iterator = iter(batches.to_iter_dataset(self._options))

    def _read(self, index: int) -> Batch:
        """Batch `index`, counted from where reading started."""
        first = index * self.global_batch_size
        rows = [self._rows[first + place] for place in range(self.global_batch_size)]
        examples = self._rows.examples
        cut = plan.micro_batches(
            np.array([self._lengths[row].sum() for row in rows]),
            self._rows.seq_len,
            self._grad_accum,
            packing=self._packing,
        )
        batch = []
        for places, length in cut:
            parts = np.split(places, self._shard_count)
            mine = np.concatenate([parts[shard] for shard in self._shards])
            built = [build_row(examples, rows[place], length) for place in mine]
            batch.append({name: np.stack([row[name] for row in built]) for name in built[0]})
        return batch


_ENDLESS = 2**50


class _Rows:
    """The samples of row i counted from a base position, in whichever epoch that falls; planned
    when needed."""

    def __init__(self, examples: Examples, seq_len: int, seed: int, packing: str):
        self.examples, self.seq_len = examples, seq_len
        self._seed, self._packing = seed, packing
        self._lock = threading.Lock()
        self._plans: dict[int, list[list[int]]] = {}
        self.rebase(0, 0)

    def rebase(self, epoch: int, row: int) -> None:
        """Makes index 0 the row `row` of `epoch`."""
        with self._lock:
            self._epoch = epoch
            self._starts = [-row]  # Index at which epoch `_epoch + i` begins.

    def count(self, epoch: int) -> int:
        """Rows in an epoch; differs a little between epochs, as packing does."""
        with self._lock:
            return len(self._plan(epoch))

    def locate(self, index: int) -> tuple[int, int]:
        """The (epoch, row) of an index."""
        with self._lock:
            while self._starts[-1] <= index:
                epoch = self._epoch + len(self._starts) - 1
                self._starts.append(self._starts[-1] + len(self._plan(epoch)))
            offset = bisect.bisect_right(self._starts, index) - 1
            return self._epoch + offset, index - self._starts[offset]

    def __getitem__(self, index: int) -> list[int]:
        epoch, row = self.locate(index)
        with self._lock:
            return self._plan(epoch)[row]

    def _plan(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            # Reading ahead touches the next epoch while the last rows of this one are being built.
            for old in sorted(self._plans)[:-2]:
                del self._plans[old]
            self._plans[epoch] = plan.rows(
                self.examples.lengths,
                self.seq_len,
                seed=self._seed,
                epoch=epoch,
                packing=self._packing,
            )
        return self._plans[epoch]
