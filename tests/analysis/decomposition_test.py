"""The loss taken apart: against each part's definition in float64, and its sum on a real model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.analysis import decomposition
from jssd.data.tokenizer import Tokenizer
from jssd.model import transformer
from jssd.sampling import truncate
from jssd.sampling.request import Sampling
from jssd.sampling.score import stack
from jssd.weights import gguf, hf
from tests.sampling.real_model_test import GGUF

B, V = 24, 300
LAWS = [
    Sampling(1.5, 20, 0.8),
    Sampling(0.9, 0, 0.85),
    Sampling(1.0, 5),
    Sampling(1.6),
    Sampling(1.0),
    Sampling(2.0, 200, 0.99),
    Sampling(0.7, min_p=0.05),
]


def law_of(settings, count):
    return jax.tree.map(lambda x: jnp.broadcast_to(x[0], count), stack([settings], V))


def taken_apart(base_BV, student_BV, settings):
    law = law_of(settings, len(base_BV))
    kept_BV = decomposition.support(base_BV, law)
    return kept_BV, decomposition.decompose(base_BV, student_BV, kept_BV, law)


def total(loss):
    return loss.compression + loss.reshaping + loss.alignment + loss.constant


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(B, V)) * rng.uniform(0.3, 6, size=(B, 1))
    student = base + rng.normal(size=(B, V)) * rng.uniform(0, 2, size=(B, 1))
    return jnp.asarray(base, jnp.float32), jnp.asarray(student, jnp.float32)


@pytest.mark.parametrize("settings", LAWS, ids=str)
def test_each_part_is_what_it_is_called(logits, settings):
    kept_BV, loss = taken_apart(logits[0], logits[1], settings)
    full = truncate.truncate(logits[0], law_of(settings, B))
    assert (np.asarray(kept_BV) == np.isfinite(np.asarray(full))).all()
    T = settings.temperature
    for row in range(B):
        S = np.asarray(kept_BV)[row]
        base, student = (np.asarray(x, np.float64)[row] for x in logits)
        p0, p = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (base, student))
        temper = lambda probs, T=T: probs ** (1 / T) / (probs ** (1 / T)).sum()
        q, c = temper(p0[S]), p[S] / p[S].sum()
        renyi = -(c * np.log(c)).sum() if T == 1 else np.log((c ** (1 / T)).sum()) / (1 - 1 / T)
        wanted = {
            "cross_entropy": -(q * np.log(p[S])).sum(),
            "compression": -np.log(p[S].sum()),
            "reshaping": (1 - T) * renyi,
            "alignment": T * (q * np.log(q / temper(c))).sum(),
            "constant": -T * (q * np.log(q)).sum(),
        }
        for name, value in wanted.items():
            assert getattr(loss, name)[row] == pytest.approx(value, abs=2e-5), name


@pytest.mark.parametrize("settings", LAWS, ids=str)
def test_the_parts_add_up(logits, settings):
    _, loss = taken_apart(logits[0], logits[1], settings)
    np.testing.assert_allclose(total(loss), loss.cross_entropy, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("settings", LAWS, ids=str)
def test_the_fitted_student_has_only_the_constant_left(logits, settings):
    base_BV, _ = logits
    law = law_of(settings, B)
    fitted_BV = truncate.truncate(base_BV, law)  # The softmax of this is q itself.
    _, loss = taken_apart(base_BV, fitted_BV, settings)
    np.testing.assert_allclose(loss.compression, 0, atol=1e-6)
    entropy_B = loss.constant / settings.temperature
    np.testing.assert_allclose(loss.cross_entropy, entropy_B, atol=1e-5)  # The infimum, H(q).
    np.testing.assert_allclose(total(loss), loss.cross_entropy, atol=1e-5)


def test_without_temperature_and_truncation_nothing_is_asked_of_the_base(logits):
    _, loss = taken_apart(logits[0], logits[0], Sampling())
    for part in (loss.compression, loss.reshaping, loss.alignment):
        np.testing.assert_allclose(part, 0, atol=1e-5)


@pytest.mark.skipif(not GGUF.exists(), reason=f"{GGUF.name} is not in assets/")
def test_the_parts_add_up_on_a_real_model(tmp_path):
    """SmolLM2 and the same with weights that noise has moved, on every position of a text."""
    folder = gguf.to_hf_folder(GGUF, tmp_path / "model", "float32")
    cfg, params = hf.load(folder)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    moved = [
        leaf + 0.05 * leaf.std() * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys)
    ]
    text = 'def add(a, b):\n    """Returns the sum of two numbers."""\n    return a + b\n'
    tokens_BT = jnp.array([Tokenizer(folder).encode(text)])
    base_TV, student_TV = (
        transformer.apply(weights, cfg, tokens_BT)[0] for weights in (params, tree.unflatten(moved))
    )
    for settings in (Sampling(1.6, 20, 0.8), Sampling(0.9, 0, 0.95), Sampling(1.2)):
        _, loss = taken_apart(base_TV, student_TV, settings)
        assert float(jnp.abs(loss.cross_entropy - loss.constant).max()) > 0.1
        np.testing.assert_allclose(total(loss), loss.cross_entropy, rtol=0, atol=1e-5)
