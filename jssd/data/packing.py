"""Which samples share a row: a pure function of lengths, seed and epoch, on any NumPy."""

import numpy as np

# Rows that may still take a sample. Looking at all rows would cost a quadratic time for large sets,
# and gain little.
_OPEN_ROWS = 1024


def order(count: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """A shuffle of `range(count)` [count] int64 that differs by seed, epoch and stream.

    Sorts raw generator words: unlike `Generator.permutation`, these are promised to stay the same
    in later NumPy.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    return np.argsort(words, kind="stable")


def rows(
    lengths: np.ndarray, seq_len: int, *, seed: int, epoch: int, packing: bool
) -> list[list[int]]:
    """The samples on each row of one epoch, as indices into `lengths`; each is on exactly one row.

    With `packing`, shuffled samples go first-fit into rows of `seq_len` tokens; then the rows are
    shuffled, because first-fit fills early rows better. Without it every sample has its own row.
    Every length must be at most `seq_len`.
    """
    shuffled = order(len(lengths), seed, epoch)
    if not packing:
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
