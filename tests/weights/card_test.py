"""Tests of the model card and of what a licence asks."""

import pytest
import yaml

from jssd.weights import card


def _write(folder, source, name="student"):
    folder.mkdir()
    card.write(
        folder,
        source,
        name=name,
        base_model="owner/base",
        decoding={"do_sample": True, "temperature": 0.9},
        notes="Scores: see below.",
    )
    text = (folder / "README.md").read_text()
    return yaml.safe_load(text.split("---\n")[1]), text


def test_the_header_is_yaml_that_the_hub_reads(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: apache-2.0 # theirs\ntags:\n- x\n---\n# Base\n"
    )
    facts, text = _write(tmp_path / "out", tmp_path)
    assert facts == {
        "license": "apache-2.0",
        "base_model": "owner/base",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["self-distillation", "code", "jssd"],
    }
    assert "# student" in text
    assert "- temperature: 0.9" in text
    assert text.endswith("Scores: see below.\n")
    assert not (tmp_path / "out" / "NOTICE").exists()


def test_a_source_that_names_no_licence_gives_unknown(tmp_path):
    facts, _ = _write(tmp_path / "out", tmp_path)
    assert facts["license"] == "unknown"


def test_a_llama_licence_brings_its_name_its_notice_and_needs_its_text(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    with pytest.raises(ValueError, match=r"llama3\.1.*holds no LICENSE file"):
        card.check(tmp_path)
    (tmp_path / "LICENSE").write_text("terms")
    card.check(tmp_path)
    _, text = _write(tmp_path / "out", tmp_path)
    assert "# Llama-student" in text
    assert "Built with Llama." in text
    assert "Llama 3.1 Community License" in (tmp_path / "out" / "NOTICE").read_text()
    _, text = _write(tmp_path / "named", tmp_path, name="Llama-3.1-8B-SSD")
    assert "# Llama-3.1-8B-SSD" in text


def test_the_licence_follows_other_with_a_name_and_link(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: 'llama3'\nlicense_link: LICENSE\n---\n"
    )
    licence = card.read_licence(tmp_path)
    assert licence == card.Licence("other", "llama3", "LICENSE")
    assert licence.is_llama
