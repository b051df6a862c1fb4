"""The Python face: load a model, look at its logits, draw completions, save it."""

import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jssd.data.tokenizer import Tokenizer
from jssd.model import transformer
from jssd.model.config import ModelConfig
from jssd.sampling import generate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.weights import checksums, gguf, hf, hub

__all__ = ["Completion", "Model", "Sampling", "load", "save"]

# A prompt: raw text, chat messages, or token ids.
Prompt = str | Sequence[dict[str, str]] | Sequence[int]

NUM_SLOTS = 16


@dataclasses.dataclass(frozen=True)
class Completion:
    """One drawn answer.

    Attributes:
      token_ids: drawn tokens, with the stop token when there was one.
      text: the decoded tokens, special ones left out.
      logprobs: natural log-probability of each token under the untruncated model at temperature 1.
      finish_reason: "stop" or "length".
    """

    token_ids: list[int]
    text: str
    logprobs: list[float]
    finish_reason: str


class Model:
    """A loaded model: `params` (nested dict of arrays), `cfg` (architecture) and `tokenizer`."""

    def __init__(self, params: transformer.Params, cfg: ModelConfig, folder: pathlib.Path):
        self.params = params
        self.cfg = cfg
        self.folder = folder  # The Hugging Face folder it came from.
        self._decoding_params: transformer.Params | None = None
        self._engines: dict[int, Engine] = {}
        self._apply = jax.jit(lambda params, tokens: transformer.apply(params, cfg, tokens))

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return Tokenizer(self.folder)

    def logits(self, token_ids) -> np.ndarray:
        """Float32 logits [B, T, V] of int token ids [B, T]; position t predicts token t + 1.

        Raises:
          ValueError: not a [B, T] array of ids below the vocabulary size, or longer than the
            context.
        """
        tokens_BT = np.asarray(token_ids)
        if (
            tokens_BT.ndim != 2
            or tokens_BT.size == 0
            or not np.issubdtype(tokens_BT.dtype, np.integer)
        ):
            raise ValueError(
                f"token_ids must be integers of shape [B, T], not {tokens_BT.dtype} "
                f"{list(tokens_BT.shape)}."
            )
        if tokens_BT.min() < 0 or tokens_BT.max() >= self.cfg.vocab_size:
            raise ValueError(f"token ids must lie in [0, {self.cfg.vocab_size}).")
        if tokens_BT.shape[1] > self.cfg.max_seq_len:
            raise ValueError(
                f"{tokens_BT.shape[1]} tokens do not fit the context of {self.cfg.max_seq_len}."
            )
        logits_BTV = np.asarray(self._apply(self.params, jnp.asarray(tokens_BT, jnp.int32)))
        return logits_BTV[..., : self.cfg.vocab_size]

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling | None = None,
        n: int = 1,
        max_new_tokens: int = 256,
        seed: int = 0,
        stop_ids: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """Draws `n` completions of each prompt.

        Args:
          prompts: each a string (raw text), a list of chat messages (dicts with "role" and
            "content"; the model's template is applied), or a list of token ids.
          sampling: the law; by default the model's own at temperature 1.
          n: completions per prompt.
          max_new_tokens: a completion that reaches it ends with finish_reason "length".
          seed: with the prompt's tokens and the sample number it decides every draw.
          stop_ids: tokens that end a completion; by default the tokenizer's.
          stop_strings: texts that end a completion with the token that completes one of them.

        Returns:
          For each prompt, in order, its `n` completions.

        Raises:
          ValueError: an empty prompt, ids outside the vocabulary, or a prompt that leaves no room
            in the context.
        """
        if isinstance(prompts, str):
            raise ValueError(
                f"prompts must be a list of prompts; put the text in a list: [{prompts[:20]!r}]."
            )
        if n < 1 or max_new_tokens < 1:
            raise ValueError(f"n={n} and max_new_tokens={max_new_tokens} must be at least 1.")
        sampling = Sampling() if sampling is None else sampling
        tokenizer = self.tokenizer
        stops = tuple(tokenizer.stop_ids if stop_ids is None else stop_ids)
        ids = [self._encode(prompt, tokenizer, index) for index, prompt in enumerate(prompts)]
        if not ids:
            return []
        lens = {f"prompt {index}": len(prompt) for index, prompt in enumerate(ids)}
        generate.check_lengths(lens, max_new_tokens, self.cfg.max_seq_len)
        requests, seen = [], {}
        for prompt in ids:
            # A prompt given twice goes on counting its samples, so its answers differ.
            first = seen.get(prompt, 0)
            seen[prompt] = first + n
            number = generate.prompt_number(
                hashlib.sha256(np.array(prompt, np.int32).tobytes()).hexdigest()
            )
            requests += [
                Request(
                    prompt,
                    seed,
                    number,
                    first + i,
                    sampling,
                    stops,
                    max_new_tokens,
                    tuple(stop_strings),
                )
                for i in range(n)
            ]
        found: dict[int, Completion] = {}
        engine = self._engine(max(lens.values()) + max_new_tokens, len(stops))
        for index, drawn in generate.run(
            engine, requests, decode=tokenizer.decode, keep_support=False
        ):
            text = tokenizer.decode(drawn.token_ids)
            found[index] = Completion(drawn.token_ids, text, drawn.logprobs, drawn.finish_reason)
        return [[found[row * n + i] for i in range(n)] for row in range(len(ids))]

    def _encode(self, prompt: Prompt, tokenizer: Tokenizer, index: int) -> tuple[int, ...]:
        if isinstance(prompt, str):
            ids = tokenizer.encode(prompt)
        elif len(prompt) and isinstance(prompt[0], dict):
            ids = tokenizer.encode(tokenizer.chat(prompt))  # pyright: ignore[reportArgumentType]
        else:
            ids = [int(token) for token in prompt]  # pyright: ignore[reportArgumentType]
        if not ids:
            raise ValueError(f"prompt {index} is empty. Give it at least one token.")
        if min(ids) < 0 or max(ids) >= self.cfg.vocab_size:
            raise ValueError(f"prompt {index}: token ids must lie in [0, {self.cfg.vocab_size}).")
        return tuple(ids)

    def _engine(self, longest: int, num_stops: int) -> Engine:
        """An engine with room for `longest` tokens; sizes are rounded up: calls share programs."""
        size = max(256, 1 << (longest - 1).bit_length())
        num_stops = max(8, num_stops)
        params = self._decoding_params
        if params is None:
            params = self._decoding_params = jax.jit(transformer.unstack)(self.params)
        if size not in self._engines or self._engines[size].num_stop_ids < num_stops:
            self._engines[size] = Engine(
                params,
                self.cfg,
                num_slots=NUM_SLOTS,
                max_len=size,
                num_stop_ids=num_stops,
            )
        return self._engines[size]


def load(path: str, dtype: str | None = None) -> Model:
    """Loads a model from a Hugging Face folder, a .gguf file, or a hub id.

    Args:
      path: where it is.
      dtype: "float32" or "bfloat16" converts the weights; None keeps the checkpoint's.

    Raises:
      FileNotFoundError, ValueError: it is missing, broken or of an architecture that is not
        implemented.
    """
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype={dtype!r} must be None, 'float32' or 'bfloat16'.")
    source = hub.resolve(path)
    if source.suffix == ".gguf":
        cache = pathlib.Path(tempfile.mkdtemp(prefix="jssd-"))
        source = gguf.to_hf_folder(source, cache / "model", dtype)
    checksums.verify(source)
    cfg, params = hf.load(source, dtype=dtype and jnp.dtype(dtype))
    return Model(params, cfg, source)


def save(model: Model, path: str) -> None:
    """Writes a Hugging Face folder with the model's weights, in the dtype they have now.

    Raises:
      FileExistsError: `path` exists and is not empty.
    """
    dtype = jax.tree.leaves(model.params)[0].dtype
    hf.save(path, model.params, model.cfg, source_folder=model.folder, dtype=dtype)
