"""Where a thinking model's answer begins: behind the marker that ends its thinking, by token ids.

Chat templates of thinking models open the thinking in the prompt, or leave that to the model; the
completion closes it either way, so only the end is looked for. Of several markers the last one
counts, as in the code on Qwen3's model cards. Where the prompt itself ends in closed thinking
(Qwen3's hybrid models with thinking switched off), the whole completion is the answer.
"""

from collections.abc import Sequence

from jssd.data.samples import Sample
from jssd.data.tokenizer import Tokenizer


class Answers:
    """The answer's part of completions, in tokens and as text."""

    def __init__(self, tokenizer: Tokenizer, marker: str):
        """Raises ValueError where the tokenizer may spell `marker` in several ways."""
        self._tokenizer = tokenizer
        self._marker = tokenizer.marker_ids(marker)

    def start(self, sample: Sample) -> int | None:
        """How many tokens of the completion come before the answer; None without one: the thinking
        never ends, or the limit cut the completion right behind it."""
        if (end := self._end(sample.token_ids)) is not None:
            return end if end < len(sample.token_ids) else None
        prompt = sample.prompt_token_ids
        end = self._end(prompt)
        closed = end is not None and not self._tokenizer.decode(prompt[end:]).strip()
        return 0 if closed else None

    def text(self, sample: Sample) -> str:
        """The answer's text, special tokens skipped; "" without an answer."""
        start = self.start(sample)
        return "" if start is None else self._tokenizer.decode(sample.token_ids[start:])

    def _end(self, ids: Sequence[int]) -> int | None:
        """The place behind the last marker in `ids`."""
        size = len(self._marker)
        for at in range(len(ids) - size, -1, -1):
            if list(ids[at : at + size]) == self._marker:
                return at + size
        return None
