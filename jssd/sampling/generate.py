"""The host loop: keeps the engine's slots full and hands out completions as they end.

It lends the cache's pages to slots as their completions grow. When they run short, the completion
begun last is set back: its pages go to the older ones and it is drawn again later, with the same
tokens, for its address decides them.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import jax

from jssd.sampling.engine import Cache, Drawn, Engine
from jssd.sampling.request import Request


@dataclasses.dataclass
class Completion:
    """One drawn completion.

    Attributes:
      token_ids: drawn tokens, with the stop token when there was one.
      logprobs: of each token under the untruncated model at temperature 1.
      support_sizes: how many tokens each draw could have taken; 0 the whole vocabulary, -1 more
        than are stored.
      support_ids: those tokens, flat.
      support_probs: the law of the draw on them, flat.
      finish_reason: "stop" (a stop id or stop string) or "length".
    """

    token_ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    support_sizes: list[int] = dataclasses.field(default_factory=list)
    support_ids: list[int] = dataclasses.field(default_factory=list)
    support_probs: list[float] = dataclasses.field(default_factory=list)
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


@dataclasses.dataclass
class Tally:
    """What the engine has done so far.

    Attributes:
      steps: decode steps.
      tokens: tokens drawn in them, with those of completions set back.
      slots: of the engine; `tokens / (steps * slots)` is how full they were.
      set_back: completions begun and thrown away for want of pages.
      on_turn: called after every few decode steps; may raise to stop between completions.
    """

    slots: int = 0
    steps: int = 0
    tokens: int = 0
    set_back: int = 0
    on_turn: Callable[[], None] = lambda: None

    @property
    def fill(self) -> float:
        """Share of the slots that drew a token, over all steps."""
        return self.tokens / max(self.steps * self.slots, 1)


def run(
    engine: Engine,
    requests: Sequence[Request],
    *,
    decode: Callable[[list[int]], str] | None = None,
    keep_support: bool = True,
    tally: Tally | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Draws every request; yields (its index, its completion) as completions end.

    Requests of one prompt share its prefill, wherever they stand.

    Args:
      engine: with room for each of the requests.
      requests: in any order.
      decode: token ids to text; needed for stop strings.
      keep_support: whether completions say which tokens each draw could have taken.
      tally: is filled in as the engine works.

    Raises:
      ValueError: a request that the engine has no room for, or stop strings without `decode`.
    """
    for request in requests:
        _check(engine, request, decode)
    loop = _Loop(engine, requests, decode, keep_support, tally or Tally())
    loop.start_turn()
    while loop.running:
        ended = loop.finish_turn()
        # The device is at work again while the caller writes down what ended.
        loop.start_turn()
        yield from ended
        loop.tally.on_turn()


class _Loop:
    """The state of `run`: which request is in which slot, and which pages are whose."""

    def __init__(self, engine: Engine, requests, decode, keep_support: bool, tally: Tally):
        self.engine, self.requests, self.decode = engine, requests, decode
        self.keep_support, self.tally = keep_support, tally
        tally.slots = engine.num_slots
        first = {request.prompt_ids: i for i, request in reversed(list(enumerate(requests)))}

        def turn(index: int) -> tuple[int, int]:
            prompt_ids = requests[index].prompt_ids
            return engine.bucket(len(prompt_ids)), first[prompt_ids]

        order = sorted(range(len(requests)), key=turn)
        self.prefixes = _Prefixes(engine, [requests[i] for i in order])
        self.waiting = list(reversed(order))
        self.running: dict[int, tuple[int, Completion]] = {}  # By slot; oldest first.
        self.free = list(range(engine.num_slots))
        self.pages = engine.pages()
        self.slots = engine.init_decode_state()
        self.drawn: Drawn | None = None  # What the device is at.
        self.short = False  # Of pages: nothing is admitted before a completion has ended.

    def admit(self) -> None:
        """Puts waiting requests into free slots, as far as pages go."""
        admitted = []
        while self.free and self.waiting and not (self.short and self.running):
            request = self.requests[self.waiting[-1]]
            slot = max(self.free, key=lambda slot: self.pages.num_free(self.pages.group(slot)))
            if not self.pages.extend(slot, self._reach(request, 0)):
                break
            self.free.remove(slot)
            admitted.append((self.waiting.pop(), slot))
        while admitted:
            prefix, rows = self.prefixes.next_group([self.requests[i] for i, _ in admitted])
            group, admitted = admitted[: len(rows)], admitted[len(rows) :]
            self.slots = self.engine.insert(
                prefix, rows, [self.requests[i] for i, _ in group], self.slots,
                [slot for _, slot in group], self.pages.table_BM,
            )  # fmt: skip
            self.running.update({slot: (index, Completion()) for index, slot in group})

    def make_room(self) -> None:
        """Lends running slots the pages of the next steps, setting the youngest back if need be."""
        for slot in list(self.running):
            while slot in self.running:
                index, completion = self.running[slot]
                if self.pages.extend(
                    slot, self._reach(self.requests[index], len(completion.token_ids))
                ):
                    break
                self._set_back(self._youngest(self.pages.group(slot)))

    def start_turn(self) -> None:
        """Fills free slots and has the device decode a few steps; does not wait for it."""
        self.admit()
        self.make_room()
        if not self.running:
            return
        # Worth leaving the device loop for: a few ended slots while others wait, or the end.
        spare = max(1, self.engine.num_slots // 16)
        full = min(len(self.running), self.engine.num_slots - spare + 1)
        leave_below = full if self.waiting else 1
        self.slots, self.drawn = self.engine.generate(self.slots, self.pages.table_BM, leave_below)
        if self.waiting:
            self.prefixes.prefill_for(self.requests[self.waiting[-1]].prompt_ids)

    def finish_turn(self) -> list[tuple[int, Completion]]:
        """Waits for the steps of `start_turn`; returns what ended in them."""
        drawn, active_B = jax.device_get((self.drawn, self.slots.active_B))
        self.tally.steps += int(drawn.num_steps)
        self.tally.tokens += int(drawn.valid_RB.sum())
        ended = []
        for slot, (index, completion) in list(self.running.items()):
            _collect(drawn, slot, completion, self.keep_support)
            request = self.requests[index]
            cut = self._stop_string_end(request, completion)
            if cut:
                _shorten(completion, cut)
                completion.finish_reason = "stop"
                if active_B[slot]:
                    self.slots = self.engine.free_resource(self.slots, slot)
            elif not active_B[slot]:
                stopped = completion.token_ids[-1] in request.stop_ids
                completion.finish_reason = "stop" if stopped else "length"
            if completion.finish_reason:
                ended.append(self.running.pop(slot))
                self._give_back(slot)
                self.short = False
        return ended

    def _reach(self, request: Request, num_drawn: int) -> int:
        """Tokens whose keys and values a slot may hold after the next steps.

        The last token drawn is never fed.
        """
        reach = len(request.prompt_ids) + num_drawn + self.engine.decode_steps
        return min(reach, request.size) - 1

    def _youngest(self, group: int) -> int:
        return next(slot for slot in reversed(self.running) if self.pages.group(slot) == group)

    def _set_back(self, slot: int) -> None:
        index, _ = self.running.pop(slot)
        self.slots = self.engine.free_resource(self.slots, slot)
        self._give_back(slot)
        self.waiting.append(index)
        self.tally.set_back += 1
        self.short = True

    def _give_back(self, slot: int) -> None:
        self.pages.release(slot)
        self.free.append(slot)

    def _stop_string_end(self, request: Request, completion: Completion) -> int:
        """Tokens up to the one that completes a stop string; 0 if there is none."""
        if not request.stop_strings:
            return 0
        assert self.decode is not None
        ids = completion.token_ids

        def stopped(size: int) -> bool:
            text = self.decode(ids[:size])  # pyright: ignore[reportOptionalCall]
            return any(stop in text for stop in request.stop_strings)

        if not stopped(len(ids)):
            return 0
        # Only the tokens of the last turn are new.
        size = max(1, len(ids) - self.engine.decode_steps)
        while not stopped(size):
            size += 1
        return size


def _shorten(completion: Completion, size: int) -> None:
    """Drops what was drawn after the first `size` tokens."""
    if completion.support_sizes:
        kept = sum(max(count, 0) for count in completion.support_sizes[:size])
        del completion.support_ids[kept:], completion.support_probs[kept:]
    for name in ("token_ids", "logprobs", "support_sizes"):
        del getattr(completion, name)[size:]


def _check(engine: Engine, request: Request, decode) -> None:
    """Refuses a request that can't be honoured: its slot would be overrun without a word."""
    size, limit, stops = len(request.prompt_ids), request.max_new_tokens, len(request.stop_ids)
    rules = (
        (size >= 1, "the prompt is empty; give it at least one token"),
        (limit >= 1, f"max_new_tokens={limit} must be at least 1"),
        (
            request.size <= engine.max_len,
            f"{size} prompt tokens and max_new_tokens={limit} exceed max_len={engine.max_len}",
        ),
        (
            stops <= engine.num_stop_ids,
            f"{stops} stop ids are more than num_stop_ids={engine.num_stop_ids}",
        ),
        ("" not in request.stop_strings, "an empty stop string would end every completion"),
        (
            decode is not None or not request.stop_strings,
            f"stop_strings={request.stop_strings!r} need decode, which turns ids into text",
        ),
    )
    errors = [text for ok, text in rules if not ok]
    if errors:
        raise ValueError("Request: " + "; ".join(errors) + ".")


class _Prefixes:
    """Prefills prompts a few at a time, in the order in which they will be asked for.

    Whatever the group, a prompt's own numbers are the same: rows do not see one another.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]):
        self._engine = engine
        self._ahead = list(dict.fromkeys(request.prompt_ids for request in requests))
        self._ahead.reverse()
        self._rows: dict[tuple[int, ...], int] = {}
        self._cache: Cache = ()

    def prefill_for(self, prompt: tuple[int, ...]) -> None:
        """Has the device prefill `prompt`, and those that come next, unless it did."""
        if prompt in self._rows:
            return
        bucket = self._engine.bucket(len(prompt))
        group = []
        if not self._ahead or self._ahead[-1] != prompt:
            group.append(prompt)  # Prefilled before, by a request that was set back.
        while self._ahead and len(group) < self._engine.prefill_rows:
            if self._engine.bucket(len(self._ahead[-1])) != bucket:
                break
            group.append(self._ahead.pop())
        self._rows = {prompt: row for row, prompt in enumerate(group)}
        self._cache = self._engine.prefill(group)

    def next_group(self, requests: Sequence[Request]):
        """The longest run of `requests` that one prefix serves: (prefix, row of each in it)."""
        self.prefill_for(requests[0].prompt_ids)
        rows = []
        for request in requests:
            if request.prompt_ids not in self._rows:
                break
            rows.append(self._rows[request.prompt_ids])
        return self._cache, rows


def _collect(drawn: Drawn, slot: int, completion: Completion, keep_support: bool) -> None:
    """Appends what was drawn in a slot: it is active from the first step until it ends."""
    size = int(drawn.valid_RB[:, slot].sum())
    completion.token_ids.extend(drawn.draw.token_B[:size, slot].tolist())
    completion.logprobs.extend(drawn.draw.logprob_B[:size, slot].tolist())
    if keep_support:
        ids = drawn.draw.support_BC[:size, slot]
        completion.support_sizes.extend(drawn.draw.support_size_B[:size, slot].tolist())
        completion.support_ids.extend(ids[ids >= 0].tolist())
        probs = drawn.draw.support_prob_BC[:size, slot]
        completion.support_probs.extend(probs[ids >= 0].tolist())
