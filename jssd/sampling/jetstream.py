"""The engine behind JetStream's Engine interface (optional: `pip install 'jssd[jetstream]'`).

`engine_class` makes a class that wraps our `Engine` and is JetStream's `engine_api.Engine` too. It
has the members of both surfaces there are, 0.2.2 on PyPI and the last of the git repository; they
differ in what `prefill` returns: a prefix, or (a prefix, the first token). Nothing of JetStream is
imported before the class is asked for.
"""

import collections
import copy
import dataclasses
import functools
import importlib
import threading
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jssd.data.tokenizer import Tokenizer
from jssd.sampling import generate
from jssd.sampling.engine import Cache, Engine, Slots
from jssd.sampling.jetstream_tokenizer import NO_BOS, TokenizerAdapter
from jssd.sampling.request import Request, Sampling

# The shortest and the longest length that its orchestrator pads a prompt to. Between, powers of 2.
SHORTEST, LONGEST = 16, 32768


def engine_class() -> type:
    """JetStream's Engine over ours; `Adapter` has the arguments and says what its methods do.

    Raises:
      ImportError: JetStream isn't installed, or the package of that name is another one.
    """
    try:
        api = importlib.import_module("jetstream.engine.engine_api")
        tokenizer_api = importlib.import_module("jetstream.engine.tokenizer_api")
    except ImportError as error:
        raise ImportError(
            f"jetstream.engine can't be imported ({error}). JetStream's package is "
            "google-jetstream: pip install 'jssd[jetstream]'. The package called jetstream on PyPI "
            "is another one with the same import name; uninstall it first."
        ) from error
    return _class(api, tokenizer_api)


def prompt_number(prompt_ids: Sequence[int]) -> int:
    """The 32-bit number that stands for a prompt in the address of its draws."""
    return generate.prompt_number(" ".join(str(int(token)) for token in prompt_ids))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """A prompt on its way into slots: a pytree, so that JetStream can move or delete its arrays."""

    cache: Cache  # Keys and values, the prompt in row 0.
    requests: tuple[Request, ...] = dataclasses.field(metadata={"static": True})  # One per slot.
    # The first token of each, already handed out; empty where `prefill` draws none.
    first: tuple[int, ...] = dataclasses.field(metadata={"static": True})


class Adapter:
    """What `engine_class` mixes into JetStream's Engine.

    A completion's address is (`seed`, `prompt_number` of its token ids, n), where n counts how
    often this adapter has been given that prompt, from 0. So it does not depend on what else is
    being served, and copies of a prompt get samples of their own. Its tokens are those that
    `generate.run` draws for a `Request` of this address.

    Args:
      engine: with decode_steps=1 and cache_tokens=0.
      max_new_tokens: of every completion. JetStream may stop listening sooner.
      sampling: the law of every completion; a `sampler` given to a method is refused.
      seed: of every completion.
      stop_ids: tokens that end a completion; None takes those of `tokenizer`, if there is one.
      tokenizer: for the orchestrator, which asks `build_tokenizer` for one.

    Raises:
      ValueError: settings that the engine can't honour.
    """

    _api: types.ModuleType
    _tokenizer_class: type
    _first_token: bool  # Whether `prefill` returns one.
    samples_per_slot = 1  # Samples of a prompt are in slots of their own.
    use_chunked_prefill = False  # The engine goes through a long prompt in chunks by itself.
    colocated_cpus = None

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        stop_ids: Sequence[int] | None = None,
        tokenizer: Tokenizer | None = None,
    ):
        stop_ids = tokenizer.stop_ids if stop_ids is None and tokenizer else stop_ids or ()
        _check(engine, max_new_tokens, stop_ids)
        self._engine, self._tokenizer = engine, tokenizer
        self._ask = functools.partial(
            Request, seed=seed, sampling=sampling, stop_ids=tuple(stop_ids),
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
        self._room = engine.max_len - max_new_tokens
        self._seen = collections.Counter()
        self._lock = threading.Lock()  # The orchestrator prefills and generates in two threads.
        # Every slot has all its pages for good: nothing to lend, to release or to run out of.
        pages = engine.pages()
        for slot in range(engine.num_slots):
            pages.extend(slot, engine.max_len)
        self._table_BM = pages.table_BM
        # The same programs over a pool with room for one completion: first tokens are drawn there,
        # before their slot is known.
        self._probe = copy.copy(engine)
        self._probe.num_pages = 1 + engine.pages_per_slot
        self._probe_slots: Slots | None = None

    def load_params(self, *args, **kwargs):
        """The engine's weights; arguments are for engines that load them now."""
        return self._engine.params

    def init_decode_state(self, *args, **kwargs) -> Slots:
        """Empty slots."""
        return self._engine.init_decode_state()

    def prefill(self, *, params=None, padded_tokens, true_length: int, request_id=None, **others):
        """Runs one prompt through the model.

        Args:
          params: None or the engine's own.
          padded_tokens: int32 [T].
          true_length: how many of them, from the first, are the prompt. May be more than T: the
            orchestrator says so of a prompt that it cut.
          request_id: not needed.
          **others: the rest of what JetStream knows: existing_prefix, sampler, rng, ... Only None.

        Returns:
          A `Prefix`, or (it, ResultTokens of one row) where JetStream wants the first token.

        Raises:
          ValueError: a prompt that is empty or too long, or an argument that would be ignored.
        """
        self._refuse(params, others)
        prefix, result = self._prefill(padded_tokens, true_length, 1)
        return (prefix, result) if self._first_token else prefix

    def prefill_multisampling(
        self, *, params=None, padded_tokens, true_length: int, num_samples: int = 1, **others
    ):
        """`prefill` for several samples of one prompt, which `bulk_insert` takes.

        Returns:
          (`Prefix`, ResultTokens of `num_samples` rows, or None without first tokens).
        """
        self._refuse(params, others)
        return self._prefill(padded_tokens, true_length, num_samples)

    def insert(self, prefix: Prefix, decode_state: Slots, slot: int, request_id=None) -> Slots:
        """Puts a prefix into a slot, whatever was in it. `decode_state` is used up."""
        return self.bulk_insert(prefix, decode_state, [slot])

    def bulk_insert(self, prefix: Prefix, decode_state: Slots, slots: Sequence[int]) -> Slots:
        """Puts the samples of a prefix into one slot each. `decode_state` is used up.

        Raises:
          ValueError: more or fewer slots than samples.
        """
        if len(slots) != len(prefix.requests):
            samples = len(prefix.requests)
            raise ValueError(
                f"{len(slots)} slots must be as many as the prefix's {samples} samples."
            )
        slots, requests = [int(slot) for slot in slots], list(prefix.requests)
        # A slot goes on behind the token that was handed out: it is the next one to be fed, and the
        # prompt's last is in the prefix like the others.
        for i, token in enumerate(prefix.first):
            ids = (*requests[i].prompt_ids, token)
            requests[i] = dataclasses.replace(requests[i], prompt_ids=ids)
        state = self._engine.insert(
            prefix.cache, [0] * len(slots), requests, decode_state, slots, self._table_BM
        )
        for slot, request, token in zip(slots, requests, prefix.first):
            state = dataclasses.replace(state, count_B=state.count_B.at[slot].set(1))
            if token in request.stop_ids or request.max_new_tokens == 1:
                state = self._engine.free_resource(state, slot)
        return state

    def generate(self, params, decode_state: Slots, sampler=None, **others):
        """One token for every slot whose completion has not ended. `decode_state` is used up.

        Returns:
          (new state, ResultTokens with one row per slot: int32 token, valid, length). Of an ended
          completion, and of a slot that nothing was put into, valid is 0.

        Raises:
          ValueError: an argument that would be ignored, such as a sampler.
        """
        self._refuse(params, {"sampler": sampler, **others})
        state, drawn = self._engine.generate(decode_state, self._table_BM, 1)
        draw, valid_B = drawn.draw, drawn.valid_RB[0].astype(jnp.int32)
        data_B3 = jnp.stack((draw.token_B[0], valid_B, state.count_B), axis=1)
        return state, self._result(data_B3, draw.logprob_B[0][:, None], self.samples_per_slot)

    def free_resource(self, slot: int) -> None:
        """Nothing to do: a slot keeps its pages, and a completion that nobody wants ends by itself.

        It isn't stopped here, because JetStream's orchestrator hands a slot out before it frees it:
        the next completion may be in it already.
        """

    def get_prefix_destination_sharding(self):
        """Where prefixes of another engine must go to be inserted here."""
        return NamedSharding(self.mesh, jax.P())

    def get_tokenizer(self):
        """TokenizerParameters that name the tokenizer's folder."""
        return self._api.tokenizer_pb2.TokenizerParameters(path=str(self._need_tokenizer().folder))

    def build_tokenizer(self, metadata=None):
        """The tokenizer under JetStream's interface; `metadata` is what `get_tokenizer` said."""
        return self._tokenizer_class(self._need_tokenizer())

    @property
    def max_concurrent_decodes(self) -> int:
        """Slots."""
        return self._engine.max_concurrent_decodes

    @property
    def max_prefill_length(self) -> int:
        """The longest prompt for the orchestrator, which knows powers of 2 only.

        `prefill` takes any that leaves room for a completion.
        """
        return min(LONGEST, 1 << (self._room.bit_length() - 1))

    @property
    def prefill_chunk_size(self) -> int:
        """Tokens of a prompt that go through the model at once."""
        return self._engine.prefill_chunk

    @property
    def mesh(self):
        """The engine's mesh, or one of its only device."""
        where = self._engine.params["embed"].sharding
        return self._engine.mesh or Mesh(np.array(list(where.device_set)), ("data",))

    def _prefill(self, padded_tokens, true_length, num_samples: int):
        ids = tuple(np.asarray(padded_tokens)[: int(true_length)].tolist())
        ids = ids[1:] if ids[:1] == (NO_BOS,) else ids
        if not 1 <= len(ids) <= self._room:
            raise ValueError(
                f"A prompt of {len(ids)} tokens must have 1 to {self._room}, which is max_len="
                f"{self._engine.max_len} less max_new_tokens."
            )
        number = prompt_number(ids)
        with self._lock:
            start = self._seen[number]
            self._seen[number] += num_samples
            cache = self._engine.prefill([ids])
            samples = range(start, start + num_samples)
            requests = tuple(self._ask(ids, prompt=number, sample=sample) for sample in samples)
            if not self._first_token:
                return Prefix(cache, requests, ()), None
            tokens, logprobs = zip(*(self._draw_first(cache, request) for request in requests))
        data_B3 = np.array([(token, 1, 1) for token in tokens], np.int32)
        result = self._result(data_B3, np.array(logprobs, np.float32)[:, None], num_samples)
        return Prefix(cache, requests, tokens), result

    def _draw_first(self, cache: Cache, request: Request) -> tuple[int, float]:
        """The first token of a completion and its log-probability."""
        # A pool with no room to spare: idle slots hold none of it.
        table_BM = np.zeros_like(self._table_BM)
        table_BM[0] = 1 + np.arange(self._engine.pages_per_slot)
        slots = self._probe_slots or self._probe.init_decode_state()
        slots = self._probe.insert(cache, [0], [request], slots, [0], table_BM)
        slots, drawn = self._probe.generate(slots, table_BM, 1)
        self._probe_slots = self._probe.free_resource(slots, 0)
        token_RB, logprob_RB = jax.device_get((drawn.draw.token_B, drawn.draw.logprob_B))
        return int(token_RB[0, 0]), float(logprob_RB[0, 0])

    def _result(self, data_B3, logprob_B1, samples_per_slot: int):
        known = {field.name for field in dataclasses.fields(self._api.ResultTokens)}
        return self._api.ResultTokens(
            data=data_B3, tokens_idx=(0, 1), valid_idx=(1, 2), length_idx=(2, 3),
            samples_per_slot=samples_per_slot,
            **({"log_prob": logprob_B1} if "log_prob" in known else {}),
        )  # fmt: skip

    def _refuse(self, params, others: dict[str, Any]) -> None:
        """What can't be honoured is an error, never ignored."""
        given = sorted(name for name, value in others.items() if value is not None)
        if given:
            raise ValueError(
                f"{', '.join(given)}: not supported. The adapter's own arguments decide how tokens "
                "are drawn (sampling, seed), and prompts are prefilled whole."
            )
        if params is not None and params is not self._engine.params:
            raise ValueError("params must be what load_params returned: the engine holds its own.")

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise ValueError("There is no tokenizer. Give one to the adapter: tokenizer=...")
        return self._tokenizer


@functools.cache
def _class(api: Any, tokenizer_api: Any) -> type:
    members = {
        "_api": api,
        "_tokenizer_class": type("Tokenizer", (TokenizerAdapter, tokenizer_api.Tokenizer), {}),
        # Only the later surface has it, and that is the one whose prefill draws.
        "_first_token": hasattr(api.Engine, "prefill_multisampling"),
    }
    return type("JetStreamEngine", (Adapter, api.Engine), members)


def _check(engine: Engine, max_new_tokens: int, stop_ids: Sequence[int]) -> None:
    room = engine.max_len - max_new_tokens
    pages = 1 + engine.num_slots // engine.num_groups * engine.pages_per_slot
    limit, length, stops = engine.num_stop_ids, engine.max_len, len(stop_ids)
    too_long = f"max_new_tokens={max_new_tokens} must leave {SHORTEST} of max_len={length} tokens"
    rules = (
        (engine.decode_steps == 1, f"decode_steps={engine.decode_steps} must be 1"),
        (engine.num_pages >= pages, "cache_tokens must be 0: a slot can't be set back here"),
        (max_new_tokens >= 1, f"max_new_tokens={max_new_tokens} must be at least 1"),
        (room >= SHORTEST, f"{too_long} for a prompt"),
        (stops <= limit, f"{stops} stop ids are more than num_stop_ids={limit}"),
    )
    errors = [text for ok, text in rules if not ok]
    if errors:
        raise ValueError("Engine for JetStream: " + "; ".join(errors) + ".")
