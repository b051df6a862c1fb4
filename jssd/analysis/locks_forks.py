"""Base and student before each token of given completions: what was sharp, what open, what changed.

A lock is a position at which the base has settled on a token, a fork one at which it has not (paper
section 5.1). The paper names no threshold; ours is one of the base's entropy.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jssd.analysis import decomposition
from jssd.model import transformer
from jssd.sampling import draw
from jssd.sampling.request import Sampling
from jssd.sampling.score import Scorer, stack
from jssd.sampling.truncate import REMOVED, Law

MODELS = ("base", "student")
RANKS = 60  # Of the curve of cumulative mass, the paper's panel a.
TOP = 20  # Of the mass that groups positions in panel d.
CANDIDATES = 8  # Tokens to show, of each model.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """What one model makes of C positions, E evaluation laws beside that of training.

    The head is S, what the law of training keeps of the base: the same for both models. Everything
    is at temperature 1 and without truncation but for the laws' own.
    """

    entropy: jax.Array  # float32 [C] nats.
    logprob: jax.Array  # float32 [C], of the completion's token.
    tail_mass: jax.Array  # float32 [C], of all outside S. The student's KeptMass is 1 less this.
    head_entropy: jax.Array  # float32 [C] nats, within S.
    support: jax.Array  # int32 [C]: what the law of training keeps of this model's own.
    eval_supports: jax.Array  # int32 [C, E], of each evaluation law.
    eval_entropies: jax.Array  # float32 [C, E] nats, of each evaluation law.
    top_ids: jax.Array  # int32 [C, RANKS], likeliest first.
    top_probs: jax.Array  # float32 [C, RANKS].


class Pair:
    """Two models with one tokenizer, side by side on the same completions.

    Args:
      base, student: stacked weights and architecture of each.
      training: the law of training; its temperature must be above 0.
      evaluation: E laws.
      mesh: where the weights lie, of axes data, expert and tensor; None is one device.
      rows, bucket, chunk, dtype: as of `Scorer`.

    Raises:
      ValueError: the vocabularies differ.
    """

    def __init__(
        self,
        base: tuple[Any, transformer.Params],
        student: tuple[Any, transformer.Params],
        *,
        training: Sampling,
        evaluation: Sequence[Sampling],
        mesh: jax.sharding.Mesh | None = None,
        rows: int = 8,
        bucket: int = 128,
        chunk: int = 128,
        dtype=None,
    ):
        sizes = [cfg.vocab_size for cfg, _ in (base, student)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"base and student have vocabularies of {sizes[0]} and {sizes[1]} tokens. Compare "
                "models that share a tokenizer."
            )
        self.rows = rows
        self._scorers = [
            Scorer(params, cfg, rows=rows, bucket=bucket, chunk=chunk, dtype=dtype)
            for cfg, params in (base, student)
        ]
        self._vocab_size = sizes[0]
        self._laws = stack([training, *evaluation], self._vocab_size)
        self._measure = self._of_logits
        if mesh is not None and mesh.size > 1:
            # Each device takes whole rows, with all of the vocabulary, to find the likeliest in.
            parts = mesh.shape["data"] * mesh.shape["expert"]
            by_row = jax.P(("data", "expert") if chunk % parts == 0 else None)
            self._measure = jax.shard_map(
                self._of_logits, mesh=mesh, in_specs=by_row, out_specs=by_row, check_vma=False
            )
        self._look = jax.jit(self._look_at)

    def look(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> Iterator[tuple[dict[str, View], dict[str, decomposition.Loss]]]:
        """Of each completion in order the views of both models, and the loss of both: before
        training and after. Leaves are [n, ...] NumPy.

        Raises ValueError for completions that `Scorer` refuses.
        """
        for start in range(0, len(prompts), self.rows):
            group = [some[start : start + self.rows] for some in (prompts, completions)]
            for scorer in self._scorers:
                scorer.check(*group)
            parts = [
                jax.device_get(self._look([s.params for s in self._scorers], *xs, token_C))
                for (*xs, token_C) in self._chunks(*group)
            ]
            whole = jax.tree.map(lambda *some: np.concatenate(some), *parts)
            ends = np.cumsum([len(ids) for ids in group[1]])
            for ids, end in zip(group[1], ends):
                cut = slice(end - len(ids), end)
                yield jax.tree.map(lambda leaf, cut=cut: leaf[cut], whole)

    def _chunks(self, prompts, completions):
        base, student = (scorer.chunks(prompts, completions) for scorer in self._scorers)
        for (x_CD, token_C), (y_CD, _) in zip(base, student):
            yield x_CD, y_CD, token_C

    def _look_at(self, params, x_CD, y_CD, token_C):
        # The two may differ in width: each has its own output matrix.
        logits = [
            transformer.logits(weights, scorer.cfg, hidden)
            for weights, scorer, hidden in zip(params, self._scorers, (x_CD, y_CD))
        ]
        return self._measure(logits, token_C)

    def _of_logits(self, logits, token_C):
        logits = [logits_CV[:, : self._vocab_size] for logits_CV in logits]
        training = jax.tree.map(lambda x: jnp.broadcast_to(x[0], token_C.shape), self._laws)
        kept_CV = decomposition.support(logits[0], training)
        views = {
            name: _view(logits_CV, kept_CV, token_C, self._laws)
            for name, logits_CV in zip(MODELS, logits)
        }
        losses = {
            name: decomposition.decompose(logits[0], logits_CV, kept_CV, training)
            for name, logits_CV in zip(MODELS, logits)
        }
        return views, losses


def rows(
    views: dict[str, View],
    losses: dict[str, decomposition.Loss],
    token_ids: Sequence[int],
    fork_entropy: float,
) -> list[dict[str, Any]]:
    """One completion as plain rows, a dict per token, ready for JSON.

    `kind` is "fork" where the base's entropy reaches `fork_entropy` nats, else "lock".
    """
    found = []
    for t, token in enumerate(token_ids):
        row: dict[str, Any] = {"token": int(token)}
        row["kind"] = "fork" if views["base"].entropy[t] >= fork_entropy else "lock"
        for name in MODELS:
            view, loss = views[name], losses[name]
            row[name] = {
                "entropy": _short(view.entropy[t]),
                "logprob": _short(view.logprob[t]),
                "tail_mass": _short(view.tail_mass[t]),
                "head_entropy": _short(view.head_entropy[t]),
                "support": int(view.support[t]),
                "top_mass": _short(view.top_probs[t, :TOP].sum()),
                "eval_supports": view.eval_supports[t].tolist(),
                "eval_entropies": [_short(x) for x in view.eval_entropies[t]],
                "candidates": [
                    [int(i), _short(p)]
                    for i, p in zip(view.top_ids[t, :CANDIDATES], view.top_probs[t, :CANDIDATES])
                ],
                "loss": {
                    part.name: _short(getattr(loss, part.name)[t])
                    for part in dataclasses.fields(loss)
                },
            }
        found.append(row)
    return found


def mass_by_rank(view: View) -> list[float]:
    """Mean over the positions of the mass of the r likeliest tokens, r from 1 to RANKS."""
    return np.cumsum(view.top_probs.astype(np.float64), axis=1).mean(axis=0).tolist()


def _short(value: Any) -> float:
    """A float32 by its shortest text."""
    return float(str(np.float32(value)))


def _view(logits_CV: jax.Array, kept_CV: jax.Array, token_C: jax.Array, laws_L: Law) -> View:
    logprob_CV = jax.nn.log_softmax(logits_CV, axis=1)
    outside_CV = jnp.where(kept_CV, REMOVED, logprob_CV)
    head_CV = jax.nn.log_softmax(jnp.where(kept_CV, logits_CV, REMOVED), axis=1)
    measured = draw.measure(logits_CV, laws_L, token_C)
    top_logprobs_CR, top_ids_CR = jax.lax.top_k(logprob_CV, min(RANKS, logprob_CV.shape[1]))
    return View(
        entropy=_entropy(logprob_CV),
        logprob=jnp.take_along_axis(logprob_CV, token_C[:, None], axis=1)[:, 0],
        tail_mass=jnp.exp(outside_CV).sum(axis=1),
        head_entropy=_entropy(head_CV),
        support=measured.size_B[0],
        eval_supports=measured.size_B[1:].T,
        eval_entropies=measured.entropy_B[1:].T,
        top_ids=top_ids_CR,
        top_probs=jnp.exp(top_logprobs_CR),
    )


def _entropy(logprob_CV: jax.Array) -> jax.Array:
    return -jnp.where(logprob_CV > REMOVED, jnp.exp(logprob_CV) * logprob_CV, 0).sum(axis=1)
