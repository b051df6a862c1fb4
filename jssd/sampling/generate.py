"""The host loop: keeps the engine's slots full and hands out completions as they end."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from jssd.sampling.engine import Cache, Drawn, Engine, Request

# Prompts prefilled together; their keys and values wait on the device until all their samples have
# a slot.
PREFILL_ROWS = 8


@dataclasses.dataclass
class Completion:
    """One drawn completion.

    Attributes:
      token_ids: drawn tokens, with the stop token when there was one.
      logprobs: of each token under the untruncated model at temperature 1.
      support_sizes: how many tokens each draw could have taken; 0 the whole vocabulary, -1 more
        than are stored.
      support_ids: those tokens, flat.
      finish_reason: "stop" or "length".
    """

    token_ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    support_sizes: list[int] = dataclasses.field(default_factory=list)
    support_ids: list[int] = dataclasses.field(default_factory=list)
    finish_reason: str = ""


def prompt_number(prompt_id: str) -> int:
    """The 32-bit number that stands for a prompt id in the address of its draws."""
    return int.from_bytes(hashlib.sha256(prompt_id.encode()).digest()[:4], "little")


def check_lengths(prompt_lens: dict[str, int], max_new_tokens: int, max_seq_len: int) -> None:
    """Refuses prompts that leave no room for a whole completion in the model's context.

    Raises:
      ValueError: names how many are too long, the longest, and what would fit.
    """
    too_long = {
        name: size for name, size in prompt_lens.items() if size + max_new_tokens > max_seq_len
    }
    if too_long:
        name = max(too_long, key=lambda key: too_long[key])
        raise ValueError(
            f"{len(too_long)} of {len(prompt_lens)} prompts do not fit the model's context of "
            f"{max_seq_len} tokens with max_new_tokens={max_new_tokens}; "
            f"the longest, {name!r}, has {too_long[name]}. "
            "Shorten the prompts or lower max_new_tokens."
        )


def run(
    engine: Engine, requests: Sequence[Request], *, keep_support: bool = True
) -> Iterator[tuple[int, Completion]]:
    """Draws every request; yields (its index, its completion) as completions end.

    Requests of one prompt share its prefill, wherever they stand.

    Raises:
      ValueError: a request that the engine has no room for.
    """
    for request in requests:
        _check(engine, request)
    first = {request.prompt_ids: i for i, request in reversed(list(enumerate(requests)))}

    def turn(index: int) -> tuple[int, int]:
        prompt_ids = requests[index].prompt_ids
        return engine.bucket(len(prompt_ids)), first[prompt_ids]

    order = sorted(range(len(requests)), key=turn)
    waiting = list(reversed(order))
    free = list(range(engine.num_slots))
    running: dict[int, tuple[int, Completion]] = {}
    prefixes = _Prefixes(engine, [requests[i] for i in order])
    slots = engine.init_decode_state()
    while waiting or running:
        while free and waiting:
            prefix, taken = prefixes.next_group(
                [requests[i] for i in reversed(waiting[-len(free) :])]
            )
            indices = [waiting.pop() for _ in taken]
            into = [free.pop() for _ in taken]
            slots = engine.insert(prefix, taken, [requests[i] for i in indices], slots, into)
            running.update({slot: (index, Completion()) for slot, index in zip(into, indices)})
        # Worth leaving the device loop for: a few ended slots while others wait, or the end.
        spare = max(1, engine.num_slots // 16)
        leave_below = engine.num_slots - spare + 1 if waiting else 1
        slots, drawn = engine.generate(slots, leave_below)
        active_B = np.asarray(slots.active_B)
        _collect(jax.device_get(drawn), running, keep_support)
        for slot in [slot for slot in running if not active_B[slot]]:
            index, completion = running.pop(slot)
            stopped = completion.token_ids[-1] in requests[index].stop_ids
            completion.finish_reason = "stop" if stopped else "length"
            free.append(slot)
            yield index, completion


def _check(engine: Engine, request: Request) -> None:
    """Refuses a request that does not fit: its slot would be overrun without a word."""
    size, limit, stops = len(request.prompt_ids), request.max_new_tokens, len(request.stop_ids)
    rules = (
        (size >= 1, "the prompt is empty; give it at least one token"),
        (limit >= 1, f"max_new_tokens={limit} must be at least 1"),
        (
            size + limit <= engine.max_len,
            f"{size} prompt tokens and max_new_tokens={limit} exceed max_len={engine.max_len}",
        ),
        (
            stops <= engine.num_stop_ids,
            f"{stops} stop ids are more than num_stop_ids={engine.num_stop_ids}",
        ),
    )
    errors = [text for ok, text in rules if not ok]
    if errors:
        raise ValueError("Request: " + "; ".join(errors) + ".")


class _Prefixes:
    """Prefills prompts a few at a time, in the order in which they will be asked for."""

    def __init__(self, engine: Engine, requests: Sequence[Request]):
        self._engine = engine
        self._ahead = list(dict.fromkeys(request.prompt_ids for request in requests))
        self._ahead.reverse()
        self._rows: dict[tuple[int, ...], int] = {}
        self._cache: Cache = ()

    def next_group(self, requests: Sequence[Request]):
        """The longest run of `requests` that one prefix serves: (prefix, row of each in it)."""
        if requests[0].prompt_ids not in self._rows:
            bucket = self._engine.bucket(len(requests[0].prompt_ids))
            group = []
            while self._ahead and len(group) < PREFILL_ROWS:
                if self._engine.bucket(len(self._ahead[-1])) != bucket:
                    break
                group.append(self._ahead.pop())
            self._rows = {prompt: row for row, prompt in enumerate(group)}
            self._cache = self._engine.prefill(group, PREFILL_ROWS)
        rows = []
        for request in requests:
            if request.prompt_ids not in self._rows:
                break
            rows.append(self._rows[request.prompt_ids])
        return self._cache, rows


def _collect(drawn: Drawn, running: dict[int, tuple[int, Completion]], keep_support: bool) -> None:
    """Appends what was drawn to the completions in their slots."""
    for step in range(int(drawn.num_steps)):
        for slot, (_, completion) in running.items():
            if not drawn.valid_RB[step, slot]:
                continue
            completion.token_ids.append(int(drawn.draw.token_B[step, slot]))
            completion.logprobs.append(float(drawn.draw.logprob_B[step, slot]))
            if keep_support:
                size = int(drawn.draw.support_size_B[step, slot])
                ids = drawn.draw.support_BC[step, slot]
                completion.support_sizes.append(size)
                completion.support_ids.extend(ids[ids >= 0].tolist())
