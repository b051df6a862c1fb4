"""The tokenizer inside a GGUF file, written as Hugging Face tokenizer files."""

import pathlib
from typing import Any

from jssd.weights.files import write_json

# How text is cut before byte-pair merging, by the GGUF key tokenizer.ggml.pre.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_REGEXES = {
    "qwen2": _WORDS % "",
    "deepseek-r1-qwen": _WORDS % "",
    "llama-bpe": _WORDS % "{1,3}",
    "llama3": _WORDS % "{1,3}",
}
_PRES = ("gpt-2", "smollm", *_REGEXES)
_CONTROL, _USER_DEFINED = 3, 4  # Values of tokenizer.ggml.token_type.
# Tokens that end a turn or a text, by whatever name; a chat model should stop at each it has.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


def refusals(meta: dict[str, Any]) -> list[str]:
    """What about the tokenizer cannot be converted."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        return [f"tokenizer {kind!r} (gpt2, byte-level BPE, can be converted)"]
    if pre not in _PRES:
        return [f"pre-tokenizer {pre!r} ({', '.join(_PRES)} can be converted)"]
    keys = ("tokens", "token_type", "merges", "eos_token_id")
    missing = [f"tokenizer.ggml.{key}" for key in keys if f"tokenizer.ggml.{key}" not in meta]
    return [f"no metadata {', '.join(missing)}"] if missing else []


def special_ids(meta: dict[str, Any]) -> dict[str, int]:
    """The ids in config.json: bos, eos and pad, each where the file has it."""
    keys = {"bos": "bos", "eos": "eos", "padding": "pad"}
    return {
        f"{ours}_token_id": meta[f"tokenizer.ggml.{theirs}_token_id"]
        for theirs, ours in keys.items()
        if f"tokenizer.ggml.{theirs}_token_id" in meta
    }


def stop_ids(meta: dict[str, Any]) -> list[int]:
    """Every token a completion should stop at, ascending."""
    stops = {
        meta[f"tokenizer.ggml.{name}_token_id"]
        for name in ("eos", "eot")
        if f"tokenizer.ggml.{name}_token_id" in meta
    }
    kinds = zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"])
    stops |= {i for i, (token, kind) in enumerate(kinds) if kind == _CONTROL and token in _ENDS}
    return sorted(stops)


def write(folder: pathlib.Path, meta: dict[str, Any], *, max_len: int) -> None:
    """Writes the tokenizer, its configuration and chat template, and generation_config.json."""
    _tokenizer(meta).save(str(folder / "tokenizer.json"))
    tokens = meta["tokenizer.ggml.tokens"]
    keys = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    config = {
        f"{ours}_token": tokens[meta[f"tokenizer.ggml.{theirs}_token_id"]]
        for theirs, ours in keys.items()
        if f"tokenizer.ggml.{theirs}_token_id" in meta
    }
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_len,
    }
    write_json(folder / "tokenizer_config.json", config)
    ids = special_ids(meta)
    write_json(folder / "generation_config.json", ids | {"eos_token_id": stop_ids(meta)})
    if template := meta.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")


def _tokenizer(meta: dict[str, Any]):
    """The `tokenizers.Tokenizer` of the file."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    tokens, pre = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.pre"]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]],
            # Llama 3 takes a word that is in the vocabulary as it is, though no merges lead to it.
            ignore_merges=pre in ("llama-bpe", "llama3"),
        )
    )
    if pre in _REGEXES:
        split = pre_tokenizers.Split(tokenizers.Regex(_REGEXES[pre]), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        cuts = [split, to_bytes]
    else:
        cuts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if pre == "smollm":
        # Every digit is a token, also after a space.
        cuts = [pre_tokenizers.Digits(individual_digits=True), *cuts]
    if pre in ("qwen2", "deepseek-r1-qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    if meta.get("tokenizer.ggml.add_bos_token"):
        bos_id = meta["tokenizer.ggml.bos_token_id"]
        bos = tokens[bos_id]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bos_id)]
        )
    # Token by token in the order of their ids, whatever their kind, as Hugging Face lists them.
    for token, kind in zip(tokens, meta["tokenizer.ggml.token_type"]):
        if kind in (_CONTROL, _USER_DEFINED):
            added = tokenizers.AddedToken(token, special=kind == _CONTROL, normalized=False)
            add = tokenizer.add_special_tokens if kind == _CONTROL else tokenizer.add_tokens
            add([added])
    return tokenizer
