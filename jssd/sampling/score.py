"""Teacher-forced scoring: what the model, and any sampling law, makes of given completions.

One forward pass gives hidden states; logits exist for `chunk` positions at a time and only where a
completion token is scored, so no [T, V] tensor is ever whole. All laws are traced: a sweep over
temperatures compiles once per number of laws.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jssd import phases
from jssd.model import transformer
from jssd.model.config import ModelConfig
from jssd.sampling import draw
from jssd.sampling.request import Sampling
from jssd.sampling.truncate import Law


@dataclasses.dataclass(frozen=True)
class Scores:
    """One completion of n tokens under L laws. All logarithms are natural.

    Attributes:
      logprobs: float32 [n], of each token under the untruncated model at temperature 1.
      entropies: float32 [n], of the untruncated model at temperature 1 before each token.
      law_logprobs: float32 [L, n], of each token under each law; -inf where the law removes it.
      kept_mass: float32 [L, n], share of the tempered model's probability that the law keeps; of a
        greedy law, at temperature 1.
      support_sizes: int32 [L, n], tokens that the law keeps.
      law_entropies: float32 [L, n], of each law before each token.
    """

    logprobs: np.ndarray
    entropies: np.ndarray
    law_logprobs: np.ndarray
    kept_mass: np.ndarray
    support_sizes: np.ndarray
    law_entropies: np.ndarray


def stack(laws: Sequence[Sampling], vocab_size: int) -> Law:
    """The settings of several laws, one array each."""
    settings = np.array(
        [(law.temperature, law.top_k, law.top_p, law.min_p) for law in laws], np.float32
    ).reshape(-1, 4)
    temperature, top_k, top_p, min_p = settings.T
    top_k = np.minimum(top_k, vocab_size).astype(np.int32)
    return Law(*map(jnp.asarray, (temperature, top_k, top_p, min_p)))


class Scorer:
    """Scores completions with one set of weights.

    Args:
      params: stacked weights.
      cfg: architecture.
      rows: completions per forward pass; they are sorted by length first.
      bucket: rows are padded to this many tokens times a power of two.
      chunk: positions whose logits exist at once.
      dtype: of activations and matmuls; None follows the weights.
    """

    def __init__(
        self,
        params: transformer.Params,
        cfg: ModelConfig,
        *,
        rows: int = 8,
        bucket: int = 128,
        chunk: int = 128,
        dtype=None,
    ):
        self.params, self.cfg = params, cfg
        self.rows, self.bucket, self.chunk = rows, bucket, chunk

        def hidden(params, tokens_BT):
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
            x_BTD = transformer.hidden(params, cfg, tokens_BT, positions_BT, dtype=dtype)
            return x_BTD.reshape(-1, x_BTD.shape[-1])

        self._hidden = jax.jit(hidden)
        self._pick = jax.jit(lambda x_ND, index_C: x_ND[index_C])
        self._chunk = jax.jit(self._score_chunk)

    def _score_chunk(self, params, x_CD, token_C, laws_L: Law):
        logits_CV = transformer.logits(params, self.cfg, x_CD)[:, : self.cfg.vocab_size]
        logprob_CV = jax.nn.log_softmax(logits_CV, axis=1)
        # A token of probability 0 adds nothing: 0 * log 0 = 0.
        part_CV = jnp.where(logprob_CV > -jnp.inf, jnp.exp(logprob_CV) * logprob_CV, 0)
        logprob_C = jnp.take_along_axis(logprob_CV, token_C[:, None], axis=1)[:, 0]
        return logprob_C, -part_CV.sum(axis=1), draw.measure(logits_CV, laws_L, token_C)

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        laws: Sequence[Sampling] = (),
    ) -> list[Scores]:
        """Scores each completion after its prompt, in the order given.

        Raises:
          ValueError: an empty prompt or completion, numbers of prompts and completions that differ,
            or one that does not fit the model's context.
        """
        self.check(prompts, completions)
        laws_L = stack(laws, self.cfg.vocab_size)
        size = [len(prompt) + len(ids) for prompt, ids in zip(prompts, completions)]
        order = sorted(range(len(size)), key=lambda i: -size[i])
        found: dict[int, Scores] = {}
        with phases.phase("measure", first="compile"):
            for start in range(0, len(order), self.rows):
                group = order[start : start + self.rows]
                found.update(self._score_group(group, prompts, completions, laws_L))
                phases.beat()
        return [found[i] for i in range(len(size))]

    def _score_group(self, group, prompts, completions, laws_L: Law) -> dict[int, Scores]:
        pairs = [(prompts[i], completions[i]) for i in group]
        parts = [
            jax.device_get(self._chunk(self.params, x_CD, token_C, laws_L))
            for x_CD, token_C in self.chunks(*zip(*pairs))
        ]
        logprob_N, entropy_N = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        measured = [
            np.concatenate([getattr(part[2], name) for part in parts], axis=1)
            for name in ("logprob_B", "mass_B", "size_B", "entropy_B")
        ]
        found, start = {}, 0
        for i in group:
            cut = slice(start, start + len(completions[i]))
            start = cut.stop
            found[i] = Scores(logprob_N[cut], entropy_N[cut], *(x[:, cut] for x in measured))
        return found

    def chunks(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> Iterator[tuple[jax.Array, np.ndarray]]:
        """Hidden states before each completion token, and these tokens: [C, D] and int32 [C].

        One forward pass of at most `rows` completions. Their tokens come one after another, cut
        into chunks; the last one is filled up with what counts for nothing.
        """
        longest = max(len(prompt) + len(ids) for prompt, ids in zip(prompts, completions))
        T = self.bucket << (-(-longest // self.bucket) - 1).bit_length()
        tokens_BT = np.zeros((self.rows, T), np.int32)
        index, target = [], []
        for row, (prompt, completion) in enumerate(zip(prompts, completions)):
            ids = [*prompt, *completion]
            tokens_BT[row, : len(ids)] = ids
            # Position t predicts token t + 1.
            index += range(row * T + len(prompt) - 1, row * T + len(ids) - 1)
            target += completion
        x_ND = self._hidden(self.params, tokens_BT)
        for start in range(0, len(index), self.chunk):
            index_C, target_C = np.zeros(self.chunk, np.int32), np.zeros(self.chunk, np.int32)
            size = min(self.chunk, len(index) - start)
            index_C[:size] = index[start : start + size]
            target_C[:size] = target[start : start + size]
            yield self._pick(x_ND, index_C), target_C

    def check(self, prompts, completions) -> None:
        """Raises the errors of `score`."""
        if len(prompts) != len(completions):
            raise ValueError(
                f"{len(prompts)} prompts and {len(completions)} completions must pair up."
            )
        for i, (prompt, ids) in enumerate(zip(prompts, completions)):
            if not len(prompt) or not len(ids):
                raise ValueError(f"prompt and completion {i} must have at least one token each.")
            if len(prompt) + len(ids) > self.cfg.max_seq_len:
                raise ValueError(
                    f"prompt and completion {i} have {len(prompt) + len(ids)} tokens together; "
                    f"the model's context is {self.cfg.max_seq_len}."
                )
