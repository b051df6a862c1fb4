"""Loss on answers only: rows of every packing give what a mask made by hand gives."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.config import PACKING
from jssd.data import examples
from jssd.data.answers import Answers
from jssd.data.pipeline import Batches
from jssd.train import loss
from tests.data.pipeline_test import sample

V, D, CLOSE, END = 24, 8, 22, 23
TOKENIZER = types.SimpleNamespace(marker_ids=lambda text: [CLOSE])


def _samples():
    """Five completions with thinking of 0 to 4 tokens, each draw of a law of two tokens."""
    for n in range(5):
        tokens = [n + 1] * n + [CLOSE, 10 + n, 11 + n, END]
        ids = [i for token in tokens for i in (token, 0)]
        probs = [0.75, 0.25] * len(tokens)
        yield sample(n, [20, 21], tokens, sizes=[2] * len(tokens), ids=ids, probs=probs)


def _by_hand(micro):
    """Sums of loss and KeptMass over the targets behind CLOSE in the same segment, row by row."""
    nll = kept = count = 0.0
    head = np.asarray(_head(), np.float64)
    for at, inputs in enumerate(micro["inputs"]):
        answering, segment = False, 0
        for time, token in enumerate(inputs):
            if micro["segment_ids"][at, time] != segment:
                answering, segment = False, micro["segment_ids"][at, time]
            answering = segment > 0 and (answering or token == CLOSE)
            if answering:
                target = micro["targets"][at, time]
                logits = _hidden(micro["inputs"])[at, time].astype(np.float64) @ head
                logs = logits - np.log(np.exp(logits).sum())
                law = "support_probs" in micro
                nll -= 0.75 * logs[target] + 0.25 * logs[0] if law else logs[target]
                kept += np.exp(logs[target]) + np.exp(logs[0])
                count += 1
    return nll, count, kept


def _head():
    return np.random.default_rng(0).normal(size=(D, V)).astype(np.float32)


def _hidden(inputs):
    rng = np.random.default_rng(1)
    return rng.normal(size=(*inputs.shape, D)).astype(np.float32)


@pytest.mark.parametrize("targets", ["draw", "law"])
@pytest.mark.parametrize("packing", PACKING)
def test_the_loss_is_that_of_a_mask_made_by_hand(packing, targets):
    made = examples.from_samples(
        list(_samples()),
        targets=targets,
        answers=Answers(TOKENIZER, "</think>"),  # pyright: ignore[reportArgumentType]
    )
    stream = Batches(made, seq_len=24, global_batch_size=1, seed=0, packing=packing)
    total = 0.0
    for _ in range(stream.report()["rows_per_epoch"]):
        [micro] = next(stream)
        sums = loss.response_loss(
            jnp.asarray(_hidden(micro["inputs"])),
            jnp.asarray(_head()),
            *(jnp.asarray(micro[name]) for name in ("targets", "loss_mask", "support_ids")),
            *(jnp.asarray(micro[name]) for name in ("support_probs",) if name in micro),
            chunk=4,
        )
        found = jax.device_get((sums.nll, sums.tokens, sums.kept_mass))
        np.testing.assert_allclose(found, _by_hand(micro), rtol=1e-5)
        total += float(sums.tokens)
    assert total == 15  # Three tokens of each answer.
