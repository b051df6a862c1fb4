"""Samples to training batches, with a loss on response or answer tokens only. Read ahead by Grain.

The order of rows is planned per epoch as a pure function of the data, the seed and the epoch, and
epochs follow one another without end and without a gap: a batch may hold the last rows of one and
the first of the next. So a position is just (epoch, row), whatever the number of processes, and a
resumed run sees exactly the rest.
"""

import bisect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from jssd.config import PACKING
from jssd.data import packing as plan
from jssd.data.examples import Examples, build_row

Batch = list[dict[str, np.ndarray]]


class Batches(Iterator[Batch]):
    """Endless batches, each the list of its `grad_accum` micro-batches: this process's rows of
    them, as arrays [rows, T].

    inputs, targets int32: a token and the one after it. loss_mask float32: 1 where the target is in
    the loss. segment_ids int32: 1, 2, ... per row; 0 is padding. positions int32: from 0 in
    each segment. support_ids int32 [rows, T, S]: the ids the target could have been drawn from,
    padded with -1; -2 first where unknown; all -1 where loss_mask is 0. S is the data set's
    `support_width`. With soft targets support_probs float32 [rows, T, S], their probabilities, 0
    elsewhere.

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
        loss_tokens = int((np.diff(examples.starts) - examples.context_lens).sum())
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
            "samples": len(examples.context_lens),
            "longest": int(self._lengths.max()),
            "tokens_per_epoch": tokens,
            "loss_tokens_per_epoch": loss_tokens,
            "rows_per_epoch": rows,
            "batches_per_epoch": rows / self.global_batch_size,
            "samples_per_row": len(examples.context_lens) / rows,
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
