"""What surrounds the weights of an export: config.json, decoding settings, tokenizer files."""

import pathlib
import shutil

from jssd.weights.files import read_json

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
# Everything in a generation_config.json that bends the law of the next token. An export serves
# exactly the decoding it was tuned with, so the source's own values of these go.
_LAW_SETTINGS = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "presence_penalty",
    "frequency_penalty",
    "penalty_alpha",
    "num_beams",
)


def copy_unchanged(source_folder: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies tokenizer, chat template and licence files byte for byte."""
    for pattern in _COPIED:
        for path in source_folder.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, folder / path.name)


def both_spellings(config: dict, dtype: str) -> dict:
    """A config.json dict with dtype, rotary settings and number of experts as transformers 4 and 5
    spell them.

    The rest is untouched. transformers 4 ignores `rope_parameters` and `num_local_experts` without
    a word, and would run with theta 10000 and expect 128 experts.
    """
    config = dict(config)
    rope = config.get("rope_parameters")
    if not rope:
        rope = {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": "default"}
        scaling = config.get("rope_scaling") or {}
        rope |= {"rope_type" if key == "type" else key: value for key, value in scaling.items()}
        config["rope_parameters"] = rope
    config["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    if not config.get("rope_scaling"):
        is_plain = rope.get("rope_type", "default") == "default"
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_scaling"] = None if is_plain else scaling
    if experts := config.get("num_local_experts") or config.get("num_experts"):
        config |= {"num_local_experts": experts, "num_experts": experts}
    return config | {"dtype": dtype, "torch_dtype": dtype}


def decoding(temperature: float, top_k: int, top_p: float) -> dict:
    """The sampling law in the words of generation_config.json. Temperature 0 is greedy."""
    if temperature == 0:
        return {"do_sample": False}
    # top_k is written even when off (0): where it is absent, transformers cuts at 50.
    return {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}


def generation_config(
    source_folder: pathlib.Path, law: dict, eos_token_ids: tuple[int, ...] = ()
) -> dict:
    """The source's generation_config.json with this law, and its stop tokens as a list.

    The stop tokens are `eos_token_ids`, or else those of the source's generation_config.json or
    config.json.
    """
    path = source_folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    generation = {key: value for key, value in generation.items() if key not in _LAW_SETTINGS}
    eos = eos_token_ids or generation.get("eos_token_id")
    if eos is None:
        eos = read_json(source_folder / "config.json").get("eos_token_id")
    if eos is not None:
        generation["eos_token_id"] = [eos] if isinstance(eos, int) else list(eos)
    return generation | law
