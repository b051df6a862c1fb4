"""A tiny model and packed batches for the tests of this room."""

import dataclasses
import types

import numpy as np
import pytest

from jssd.config import TrainConfig
from tests.model.conftest import TINY


def train_config(**changes) -> TrainConfig:
    """A config whose few updates are large enough to see."""
    config = TrainConfig(
        num_steps=8,
        warmup_steps=2,
        learning_rate=1e-2,
        final_learning_rate=1e-3,
        loss_chunk=8,
        eps=1e-6,
    )
    return dataclasses.replace(config, **changes)


def make_batch(seed: int = 0, rows: int = 8, length: int = 24) -> dict[str, np.ndarray]:
    """Rows of two samples and some padding, with shares of response tokens that differ by row."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(1, TINY.vocab_size, (rows, length)).astype(np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    loss_mask = np.zeros((rows, length), np.float32)
    for row in range(rows):
        start = 0
        for segment, size in enumerate((rng.integers(4, 12), rng.integers(4, 12)), 1):
            span = slice(start, start + size)
            segment_ids[row, span] = segment
            positions[row, span] = np.arange(size)
            loss_mask[row, start + rng.integers(1, size) : start + size] = 1
            start += size
    targets = np.roll(inputs, -1, axis=1)
    support_ids = np.full((rows, length, 3), -1, np.int32)
    support_ids[..., 0] = targets
    support_ids[..., 1] = (targets + 1) % TINY.vocab_size
    support_ids[:, ::5, 0] = -2
    return {
        "inputs": inputs,
        "targets": targets,
        "loss_mask": loss_mask,
        "segment_ids": segment_ids,
        "positions": positions,
        "support_ids": support_ids,
    }


def split(batch: dict[str, np.ndarray], grad_accum: int) -> list[dict[str, np.ndarray]]:
    """The rows of a batch as micro-batches."""
    parts = {name: np.split(array, grad_accum) for name, array in batch.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(grad_accum)]


class Batches:
    """An endless stream of `make_batch` whose position can be saved."""

    def __init__(self, start: int = 0, grad_accum: int = 1):
        self.index = start
        self.grad_accum = grad_accum

    def __next__(self) -> list[dict[str, np.ndarray]]:
        self.index += 1
        return split(make_batch(self.index - 1), self.grad_accum)

    def get_state(self) -> dict:
        return {"index": self.index}


@pytest.fixture(scope="session")
def toy() -> types.SimpleNamespace:
    """The helpers of this file, for test files that cannot import it by name."""
    return types.SimpleNamespace(
        cfg=TINY,
        train_config=train_config,
        make_batch=make_batch,
        split=split,
        Batches=Batches,
    )
