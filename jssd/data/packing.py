"""Which samples share a row, and which rows a micro-batch: pure functions of lengths, seed, epoch.

The paper says nothing on packing; the three modes are ours. Rows of "packed" hold as many samples
as fit. Rows of "none" and of "bucketed" hold one, in the same order, so that each optimizer step
sees the same samples. "none" computes all rows at the full length; "bucketed" sorts the rows of a
step by length and computes each micro-batch only as long as its longest row asks, so that a limit
of 65,536 tokens does not make short answers pay for it.
"""

import bisect
import math
from typing import Any

import numpy as np

# Rows that may still take a sample. Looking at all rows would cost a quadratic time for large sets,
# and gain little.
_OPEN_ROWS = 1024
_TILE = 128  # Attention kernels take lengths that are multiples of this.
# Lengths of micro-batches in use at once, each a program to compile. Below the shortest of so many
# a micro-batch costs under a hundredth of a full one.
_RUNGS = 8


def order(count: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """A shuffle of `range(count)` [count] int64 that differs by seed, epoch and stream.

    Sorts raw generator words: unlike `Generator.permutation`, these are promised to stay the same
    in later NumPy.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    return np.argsort(words, kind="stable")


def rows(
    lengths: np.ndarray, seq_len: int, *, seed: int, epoch: int, packing: str
) -> list[list[int]]:
    """The samples on each row of one epoch, as indices into `lengths`; each is on exactly one row.

    With "packed", shuffled samples go first-fit into rows of `seq_len` tokens; then the rows are
    shuffled, because first-fit fills early rows better. Else every sample has its own row. Every
    length must be at most `seq_len`.
    """
    shuffled = order(len(lengths), seed, epoch)
    if packing != "packed":
        return [[int(sample)] for sample in shuffled]
    packed: list[list[int]] = []
    free = np.zeros(_OPEN_ROWS, np.int64)  # Ring: the free space of row r is at r % _OPEN_ROWS.
    ages = np.arange(_OPEN_ROWS)
    for sample in shuffled:
        oldest = max(len(packed) - _OPEN_ROWS, 0)
        fits = np.flatnonzero(free[(oldest + ages) % _OPEN_ROWS] >= lengths[sample])
        if fits.size:
            row = oldest + int(fits[0])
            packed[row].append(int(sample))
        else:
            row = len(packed)
            packed.append([int(sample)])
            free[row % _OPEN_ROWS] = seq_len
        free[row % _OPEN_ROWS] -= lengths[sample]
    return [packed[row] for row in order(len(packed), seed, epoch, stream=1)]


def check_cut(global_batch_size: int, grad_accum: int, shard_count: int) -> None:
    """Raises ValueError where a batch can't be cut evenly into micro-batches and these over shards
    of the mesh."""
    parts = grad_accum * shard_count
    if global_batch_size % parts:
        ways = math.gcd(global_batch_size // grad_accum, shard_count)
        fewer = "a smaller train.grad_accum, " if grad_accum > 1 else ""
        raise ValueError(
            f"train.global_batch_size={global_batch_size} must be a multiple of {parts}: "
            f"train.grad_accum={grad_accum} micro-batches, each split {shard_count} ways over "
            "mesh data*fsdp*expert. Set "
            f"train.global_batch_size={-(-global_batch_size // parts) * parts}, {fewer}or a mesh "
            f"that splits rows {ways} ways and has {shard_count // ways} times as much on context "
            "or tensor (the notes in configs/ have tables of meshes)."
        )


def ladder(seq_len: int) -> tuple[int, ...]:
    """Lengths that micro-batches of "bucketed" may have, rising: 128 times powers of two, the
    largest few below `seq_len`, then `seq_len` itself."""
    rungs = [_TILE << power for power in range(64) if _TILE << power < seq_len]
    return (*rungs[-(_RUNGS - 1) :], seq_len)


def micro_batches(
    row_lengths: np.ndarray, seq_len: int, grad_accum: int, *, packing: str
) -> list[tuple[np.ndarray, int]]:
    """Cuts the rows of one optimizer step into `grad_accum` micro-batches of equally many rows.

    Args:
      row_lengths: int64 [rows], the tokens on each row; rows a multiple of `grad_accum`.

    Returns:
      Of each micro-batch its rows, as int64 indices into `row_lengths`, and its length in tokens:
      `seq_len`, or with "bucketed" the lowest of `ladder` that its longest row fits in. Then the
      longest rows come first, so a step too large for the machine fails at its start.
    """
    if packing != "bucketed":
        return [(part, seq_len) for part in np.split(np.arange(len(row_lengths)), grad_accum)]
    rungs = ladder(seq_len)
    longest_first = np.argsort(-row_lengths, kind="stable")
    return [
        (part, rungs[bisect.bisect_left(rungs, row_lengths[part].max())])
        for part in np.split(longest_first, grad_accum)
    ]


def tokens_per_step(
    lengths: np.ndarray,
    seq_len: int,
    *,
    seed: int,
    global_batch_size: int,
    grad_accum: int,
    packing: str,
) -> dict[str, Any]:
    """What a mode would cost, ready for JSON: means over the steps of the first epoch.

    `real` tokens of samples, `computed` tokens with padding, and `share`, the one by the other.
    """
    plan = rows(lengths, seq_len, seed=seed, epoch=0, packing=packing)
    row_lengths = np.array([lengths[row].sum() for row in plan])
    # The last step is filled up from the start: near enough to the next epoch's first rows.
    steps = np.resize(row_lengths, (-(-len(plan) // global_batch_size), global_batch_size))
    computed = np.mean(
        [
            sum(len(part) * length for part, length in cut)
            for cut in (micro_batches(step, seq_len, grad_accum, packing=packing) for step in steps)
        ]
    )
    real = row_lengths.mean() * global_batch_size
    return {"real": float(real), "computed": float(computed), "share": float(real / computed)}
