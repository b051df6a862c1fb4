"""Our tokenizer behind JetStream's Tokenizer interface (see `jetstream.py`)."""

import logging
from collections.abc import Sequence

import numpy as np

from jssd.data.tokenizer import Tokenizer

# JetStream puts a tokenizer's bos_id before every prompt; this one stands for none.
NO_BOS = -1


class TokenizerAdapter:
    """What is mixed into JetStream's Tokenizer: the interface that its orchestrator asks for.

    It decodes token by token, so a character that several tokens make up is lost; who needs the
    exact text sends and receives token ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._bos_ids = tokenizer.encode(tokenizer.prefix) if tokenizer.prefix else []

    def encode(self, s: str, *, is_bos: bool = True, max_prefill_length: int = 0, **padding):
        """(ids int32 [T], T); not padded, the engine does that. `is_bos` puts BOS ahead, once.

        Like JetStream's own, keeps the last `max_prefill_length` and warns: an error would end its
        server.
        """
        ids = self._tokenizer.encode(s)
        if is_bos and ids[: len(self._bos_ids)] != self._bos_ids:
            ids = self._bos_ids + ids
        if max_prefill_length and len(ids) > max_prefill_length:
            logging.warning("A prompt of %d tokens loses all but its last ones.", len(ids))
            ids = ids[-max_prefill_length:]
        return np.array(ids, np.int32), len(ids)

    def decode(self, token_ids: Sequence[int], **kwargs) -> str:
        """Text of `token_ids`."""
        return self._tokenizer.decode(token_ids)

    @property
    def pad_id(self) -> int:
        """Padding."""
        return self._tokenizer.pad_id

    @property
    def eos_id(self) -> int:
        """The token that closes a turn."""
        return self._tokenizer.eos_id

    @property
    def bos_id(self) -> int:
        """What JetStream puts before the ids of every prompt; `NO_BOS` if the model wants none."""
        return self._bos_ids[0] if self._bos_ids else NO_BOS

    @property
    def stop_tokens(self) -> set[int]:
        """Tokens at which JetStream ends a completion; it doesn't hand them out."""
        return set(self._tokenizer.stop_ids)
