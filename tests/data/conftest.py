"""A tokenizer folder that needs no download, for the tests of this room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

CHATML = (
    "{% for message in messages %}\n"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tokenizer of single bytes, ids 0-255; then <|im_start|>, <|im_end|>, <|bos|>."""

    def make(
        *, config: dict | None = None, chat: str | None = CHATML, bos: bool = False, **files: Any
    ) -> Path:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = tokenizers.Tokenizer(
            models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[])
        )
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore
        backend.decoder = decoders.ByteLevel()  # type: ignore
        backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|bos|>"])
        if bos:
            backend.post_processor = processors.TemplateProcessing(  # type: ignore
                single="<|bos|> $A", special_tokens=[("<|bos|>", 258)]
            )
        folder = tmp_path / "tokenizer"
        folder.mkdir(exist_ok=True)
        backend.save(str(folder / "tokenizer.json"))
        config = {"eos_token": "<|im_end|>", "bos_token": "<|bos|>"} if config is None else config
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if chat is not None:
            (folder / "chat_template.jinja").write_text(chat)
        for name, tree in files.items():
            (folder / f"{name}.json").write_text(json.dumps(tree))
        return folder

    return make
