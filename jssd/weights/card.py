"""The model card of an export, and what the licence of the base model asks of it."""

import dataclasses
import json
import pathlib
import re


@dataclasses.dataclass(frozen=True)
class Licence:
    """What the source folder says about its licence."""

    license: str = "unknown"  # The hub's id, e.g. "apache-2.0".
    license_name: str = ""
    license_link: str = ""

    @property
    def is_llama(self) -> bool:
        """True for Meta's community licences, which have rules about names and notices."""
        return any(text.lower().startswith("llama") for text in (self.license, self.license_name))


def read_licence(folder: pathlib.Path) -> Licence:
    """The licence in the header of a folder's README.md; "unknown" without one."""
    readme = folder / "README.md"
    if not readme.is_file():
        return Licence()
    text = readme.read_text(encoding="utf-8", errors="replace")
    header = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    found = {}
    for line in header.group(1).splitlines() if header else ():
        key, colon, value = line.partition(":")
        value = value.split(" #")[0].strip().strip("\"'")
        if colon and value and key in ("license", "license_name", "license_link"):
            found[key] = value
    return Licence(**found)


def check(source_folder: pathlib.Path) -> None:
    """Refuses a base model whose licence must travel with the export but is not there to be copied.

    Cheap: call it before the work begins, not only when the export is written.

    Raises:
      ValueError: a Llama licence without a LICENSE file.
    """
    licence = read_licence(source_folder)
    if licence.is_llama and not any(source_folder.glob("LICENSE*")):
        raise ValueError(
            f"{source_folder} is under {licence.license_name or licence.license}, which asks that "
            "a copy travels with "
            "derived models, but it holds no LICENSE file. Put the licence text there as LICENSE."
        )


def write(
    folder: pathlib.Path,
    source_folder: pathlib.Path,
    *,
    name: str,
    base_model: str,
    decoding: dict,
    notes: str = "",
) -> None:
    """Writes README.md, and NOTICE where the licence asks for one.

    Args:
      name: title of the model. Under a Llama licence "Llama-" is put in front unless it starts so.
      base_model: hub id of the base model, or "" if it has none.
      decoding: the settings in generation_config.json, shown to the reader.
      notes: Markdown for the end of the card, such as scores.
    """
    licence = read_licence(source_folder)
    if licence.is_llama and not name.startswith("Llama"):
        name = f"Llama-{name}"
    facts: dict[str, object] = {key: value for key, value in vars(licence).items() if value}
    if base_model:
        facts |= {"base_model": base_model, "base_model_relation": "finetune"}
    facts |= {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["self-distillation", "code", "jssd"],
    }
    # JSON strings and lists are YAML too, so quoting needs no YAML library.
    header = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts.items())
    settings = "\n".join(f"- {key}: {value}" for key, value in decoding.items())
    llama = licence.is_llama
    built_with = "Built with Llama.\n\n" if llama else ""
    text = (
        f"---\n{header}---\n\n# {name}\n\n{built_with}"
        f"{base_model or 'The base model'}, fine-tuned on its own unfiltered samples by simple "
        "self-distillation "
        "(sample from the frozen model with truncation at a raised temperature, then train on the "
        "raw samples).\n\n"
        "## Decoding\n\n`generation_config.json` holds the settings chosen for this "
        f"model:\n\n{settings}\n"
    )
    (folder / "README.md").write_text(text + (f"\n{notes}\n" if notes else ""), encoding="utf-8")
    if llama and not (folder / "NOTICE").exists():
        version = re.search(r"\d+(\.\d+)?", licence.license_name or licence.license)
        family = f"Llama {version.group(0)}" if version else "Llama"
        (folder / "NOTICE").write_text(
            f"{family} is licensed under the {family} Community License, "
            "Copyright © Meta Platforms, Inc. All Rights Reserved.\n",
            encoding="utf-8",
        )
