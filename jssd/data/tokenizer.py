"""A Hugging Face tokenizer folder as four verbs: encode, decode, chat, and when to stop.

Reads the files themselves (`tokenizers` and jinja2), so that neither torch nor transformers is
imported, and so that text and ids never disagree with what `tokenizer.json` says. Folders written
by transformers 4 and 5 are both understood.
"""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers


class Tokenizer:
    """Text to token ids and back, as the model in `folder` was trained to see it.

    Attributes:
      eos_id: the token that closes a turn (the tokenizer's own, else the first stop id).
      stop_ids: every token that ends generation: generation_config.json (else config.json), then
        `eos_id`. No repeats.
      pad_id: the padding token; equal to `eos_id` in many models, so never mask a loss by it.
      vocab_size: one above the largest id the tokenizer can produce.
      prefix: text of the special tokens that the tokenizer puts ahead of plain text (Llama's BOS);
        "" for most. `encode` doesn't add it: a prompt sent without a chat template starts with it,
        so that the prompt's text is complete.
      has_chat: whether there is a chat template.
    """

    def __init__(self, folder: str | Path):
        """Raises FileNotFoundError without tokenizer.json, ValueError without any stop id."""
        self.folder = Path(folder)
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.folder} holds no tokenizer.json. Point model.path at a folder with the "
                "model's tokenizer."
            )
        self._backend = tokenizers.Tokenizer.from_file(str(path))
        # Some folders carry the truncation and padding of their last training batch.
        self._backend.no_truncation()
        self._backend.no_padding()
        config = self._read_json("tokenizer_config.json")
        self._add_tokens(config)
        self._special = _special_texts(self._read_json("special_tokens_map.json") | config)
        eos = self._special_id("eos_token")
        generation = self._read_json("generation_config.json").get("eos_token_id")
        stops = generation if generation is not None else _model_eos(self._read_json("config.json"))
        stops = [stops] if isinstance(stops, int) else list(stops or ())
        self.stop_ids = tuple(dict.fromkeys(stops + ([] if eos is None else [eos])))
        if not self.stop_ids:
            raise ValueError(
                f"{self.folder} names no end-of-turn token. Set eos_token in "
                "tokenizer_config.json or eos_token_id in generation_config.json."
            )
        self.eos_id = self.stop_ids[0] if eos is None else eos
        pad = self._special_id("pad_token")
        self.pad_id = self.eos_id if pad is None else pad
        self.vocab_size = max(self._backend.get_vocab().values()) + 1
        self.prefix = self._read_prefix(config)
        self._template = _compile(self._read_template(config), self.folder)
        self.has_chat = self._template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Adds no special tokens; those written in the text become their
        ids.
        """
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens skipped, nothing cleaned up (code needs its spaces)."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def show(self, token: int) -> str:
        """One token's text by itself, special tokens too; parts of a character show as "�"."""
        return self._backend.decode([token], skip_special_tokens=False)

    def marker_ids(self, text: str) -> list[int]:
        """Token ids of a marker that is spelled the same wherever it stands: it begins and ends
        with an added token. Raises ValueError for any other text, whose pieces may merge with the
        text around it.
        """
        ids = self.encode(text)
        added = self._backend.get_added_tokens_decoder()
        if not ids or ids[0] not in added or ids[-1] not in added:
            pieces = ", ".join(repr(self._backend.id_to_token(i)) for i in ids) or "nothing"
            raise ValueError(
                f"train.think_end={text!r} is no token of {self.folder} but spelled with {pieces}, "
                "which may merge with the text around. Name the token that ends this model's "
                "thinking, or set train.loss_on='response' if it does not think."
            )
        return ids

    def chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The chat template's text for `messages` (role, content), up to where the answer begins.

        A template that asks for today's date gets a fixed one: a prompt depends on its config, not
        on the day it is sent. Raises ValueError without a template, or when the template refuses
        the messages (a system turn, say).
        """
        if self._template is None:
            raise ValueError(
                f"{self.folder} holds no chat template. Use a chat model, or a template without a "
                "chat (prompts.template 'raw' or 'apple_raw', and the same for "
                "evaluate.template)."
            )
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special,
            )
        except jinja2.TemplateError as error:
            roles = [message.get("role") for message in messages]
            raise ValueError(
                f"{self.folder}: its chat template refused turns {roles}: {error}. Choose another "
                "prompts.template."
            ) from error

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} isn't valid JSON: {error}.") from error
        if not isinstance(tree, dict):
            raise ValueError(f"{path} must hold a JSON object, not a {type(tree).__name__}.")
        return tree

    def _add_tokens(self, config: dict[str, Any]) -> None:
        """Adds tokens that only tokenizer_config.json lists (transformers 4), each at its listed
        id.
        """
        listed = config.get("added_tokens_decoder") or {}
        for listed_id, token in sorted(listed.items(), key=lambda item: int(item[0])):
            known = self._backend.token_to_id(token["content"])
            if known is None:
                known = self._backend.get_vocab_size(with_added_tokens=True)
                flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
                self._backend.add_tokens(
                    [
                        tokenizers.AddedToken(
                            token["content"], **{flag: token.get(flag, False) for flag in flags}
                        )
                    ]
                )
                known = self._backend.token_to_id(token["content"])
            if known != int(listed_id):
                raise ValueError(
                    f"{self.folder}: token {token['content']!r} is {known} by tokenizer.json but "
                    f"{listed_id} by tokenizer_config.json. Take both files from the same model."
                )

    def _special_id(self, name: str) -> int | None:
        text = self._special.get(name)
        if text is None:
            return None
        token = self._backend.token_to_id(text)
        if token is None:
            raise ValueError(f"{self.folder}: {name} {text!r} isn't in tokenizer.json.")
        return token

    def _read_prefix(self, config: dict[str, Any]) -> str:
        # Older folders say it in words; otherwise tokenizer.json's post-processor shows what it
        # does.
        if isinstance(config.get("add_bos_token"), bool):
            return self._special.get("bos_token", "") if config["add_bos_token"] else ""
        encoding = self._backend.encode("a", add_special_tokens=True)
        mask = encoding.special_tokens_mask
        count = next((i for i, special in enumerate(mask) if not special), 0)
        return "".join(str(self._backend.id_to_token(i)) for i in encoding.ids[:count])

    def _read_template(self, config: dict[str, Any]) -> str | None:
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        template = config.get("chat_template")
        if isinstance(template, list):  # Several named templates: transformers 4.
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template


class _GenerationTag(jinja2.ext.Extension):
    """Lets templates mark the assistant's words with `{% generation %}`; we don't need the
    marks.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2's own contract)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compile(source: str | None, folder: Path) -> jinja2.Template | None:
    """A template in the environment Hugging Face documents, sandboxed: it came by download."""
    if source is None:
        return None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _DATE.strftime
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ValueError(f"{folder}: its chat template can't be read: {error}.") from error


# The day that Llama 3's own template falls back to where it has no clock.
_DATE = datetime.datetime(2024, 7, 26)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML characters, which chat templates don't want.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _special_texts(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as text; a value is a string or a serialised AddedToken."""
    texts = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if value is not None:
            texts[name] = value
    return texts


def _model_eos(config: dict[str, Any]) -> int | list[int] | None:
    return config.get("eos_token_id", config.get("text_config", {}).get("eos_token_id"))
