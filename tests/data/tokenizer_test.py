"""Tests of jssd/data/tokenizer.py."""

import subprocess
import sys

import pytest
import tokenizers

from jssd.data.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "Hi"}]


def test_encode_parses_special_tokens_and_adds_none(make_folder):
    tokenizer = Tokenizer(make_folder(bos=True))
    assert tokenizer.encode("<|im_start|>") == [256]
    assert len(tokenizer.encode("ab<|im_end|>")) == 3


@pytest.mark.parametrize("text", ["x =   12\n\n1", "  def f( a ) :\n\treturn 'é 汉 🙂'\r\n", ""])
def test_round_trip_is_exact(make_folder, text):
    tokenizer = Tokenizer(make_folder())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_skips_special_tokens(make_folder):
    tokenizer = Tokenizer(make_folder())
    assert tokenizer.decode([256, *tokenizer.encode("hi"), 257]) == "hi"


def test_stop_ids_join_generation_config_and_the_tokenizers_own(make_folder):
    tokenizer = Tokenizer(make_folder(generation_config={"eos_token_id": [0, 257]}))
    assert (tokenizer.stop_ids, tokenizer.eos_id) == ((0, 257), 257)
    tokenizer = Tokenizer(make_folder(generation_config={"eos_token_id": 5}))
    assert (tokenizer.stop_ids, tokenizer.eos_id, tokenizer.pad_id) == ((5, 257), 257, 257)


def test_stop_ids_come_from_the_model_config_when_there_is_no_generation_config(make_folder):
    folder = make_folder(config={})
    (folder / "config.json").write_text('{"eos_token_id": [7, 8]}')
    tokenizer = Tokenizer(folder)
    assert (tokenizer.stop_ids, tokenizer.eos_id) == ((7, 8), 7)


def test_no_stop_id_at_all_is_refused(make_folder):
    with pytest.raises(ValueError, match="no end-of-turn token"):
        Tokenizer(make_folder(config={}))


def test_pad_and_vocab_size(make_folder):
    config = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|im_start|>"}
    tokenizer = Tokenizer(make_folder(config=config))
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (256, 259)


def test_prefix_is_the_bos_that_plain_text_gets(make_folder):
    assert Tokenizer(make_folder()).prefix == ""
    assert Tokenizer(make_folder(bos=True)).prefix == "<|bos|>"
    config = {"eos_token": "<|im_end|>", "bos_token": "<|bos|>", "add_bos_token": False}
    assert Tokenizer(make_folder(bos=True, config=config)).prefix == ""
    assert Tokenizer(make_folder(config=config | {"add_bos_token": True})).prefix == "<|bos|>"


def test_tokens_that_only_the_config_lists_are_added_at_their_ids(make_folder):
    config = {
        "eos_token": "<|x|>",
        "added_tokens_decoder": {"259": {"content": "<|x|>", "special": True}},
    }
    tokenizer = Tokenizer(make_folder(config=config))
    assert (tokenizer.encode("<|x|>"), tokenizer.eos_id, tokenizer.decode([259])) == (
        [259],
        259,
        "",
    )
    config["added_tokens_decoder"] = {"7": {"content": "<|im_end|>"}}
    with pytest.raises(ValueError, match=r"is 257 by tokenizer.json but 7"):
        Tokenizer(make_folder(config=config))


def test_chat_ends_with_the_generation_prompt(make_folder):
    tokenizer = Tokenizer(make_folder())
    text = tokenizer.chat(TALK)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode(text).count(256) == 2


def test_chat_template_of_transformers_4_lies_in_the_config(make_folder):
    config = {"eos_token": "<|im_end|>", "chat_template": "A{{ messages[0]['content'] }}"}
    assert Tokenizer(make_folder(config=config, chat=None)).chat(TALK) == "AHi"
    named = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "B{{ eos_token }}"},
    ]
    config = {"eos_token": "<|im_end|>", "chat_template": named}
    assert Tokenizer(make_folder(config=config, chat=None)).chat(TALK) == "B<|im_end|>"


def test_what_is_missing_is_named_in_one_line(make_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.json"):
        Tokenizer(tmp_path)
    tokenizer = Tokenizer(make_folder(chat=None))
    assert not tokenizer.has_chat
    with pytest.raises(ValueError, match="holds no chat template") as caught:
        tokenizer.chat(TALK)
    assert "\n" not in str(caught.value)


def test_a_template_that_refuses_the_turns_is_a_clear_error(make_folder):
    tokenizer = Tokenizer(make_folder(chat="{{ raise_exception('no system turn') }}"))
    with pytest.raises(ValueError, match=r"refused turns \['user'\]: no system turn"):
        tokenizer.chat(TALK)
    with pytest.raises(ValueError, match="can't be read"):
        Tokenizer(make_folder(chat="{% if %}"))


def test_a_template_cannot_reach_python(make_folder):
    tokenizer = Tokenizer(make_folder(chat="{{ messages.__class__.__mro__ }}"))
    with pytest.raises(ValueError, match="unsafe"):
        tokenizer.chat(TALK)


def test_a_dated_template_renders_the_same_every_day(make_folder):
    tokenizer = Tokenizer(make_folder(chat="{{ strftime_now('%d %b %Y') }}"))
    assert tokenizer.chat(TALK) == "26 Jul 2024"


FEATURES = (
    "{{ bos_token }}{%- set ns = namespace(n=0) -%}\n"
    "{% for m in messages %}\n"
    "    {% if m.role == 'system' %}{% continue %}{% endif %}\n"
    "    {% set ns.n = ns.n + 1 %}\n"
    "  [{{ loop.index0 }}{{ m | tojson }}{{ m.content | trim }}]\n"
    "    {% generation %}{{ ns.n }}{% endgeneration %}\n"
    "{% endfor %}\n"
    "{% if tools is defined and tools is not none %}T{% endif %}"
    "{% if add_generation_prompt %}<go>\n{% endif %}"
)


def test_chat_equals_transformers_and_its_new_folder_layout_is_read(make_folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": " <é>&'\" "}]
    folder = make_folder(chat=None)
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")),
        eos_token="<|im_end|>",
        bos_token="<|bos|>",
    )
    reference.chat_template = FEATURES
    reference.save_pretrained(tmp_path / "saved")
    ours = Tokenizer(tmp_path / "saved")
    theirs = reference.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert ours.chat(talk) == theirs
    assert ours.encode(theirs) == reference(theirs, add_special_tokens=False)["input_ids"]
    assert ours.eos_id == reference.eos_token_id


def test_reading_a_tokenizer_imports_neither_torch_nor_transformers():
    slow = "{'torch', 'transformers', 'jax'}"
    code = f"import sys, jssd.data.tokenizer; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
