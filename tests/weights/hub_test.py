"""Tests of what a model's name resolves to."""

import fnmatch

import huggingface_hub
import pytest

from jssd.weights import hub


def test_what_is_on_disk_is_taken_as_it_is(tmp_path):
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"")
    assert hub.resolve(str(tmp_path)) == tmp_path
    assert hub.resolve(str(gguf)) == gguf


def test_a_revision_of_a_local_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.revision='v2' only means something for a hub id"):
        hub.resolve(str(tmp_path), "v2")


def test_other_files_and_missing_paths_are_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"folder or a \.gguf file"):
        hub.resolve(str(tmp_path / "model.bin"))
    for path in ("/no/such/folder", "./missing", "missing.gguf", "a/missing.gguf"):
        with pytest.raises(FileNotFoundError, match="does not exist, and is not a hub id"):
            hub.resolve(path)


def test_a_hub_id_is_fetched_at_its_revision_without_pickles(tmp_path, monkeypatch):
    seen = {}

    def snapshot_download(repo_id, *, revision, allow_patterns):
        seen.update(repo_id=repo_id, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub.resolve("owner/name", "abc123") == tmp_path
    assert (seen["repo_id"], seen["revision"]) == ("owner/name", "abc123")
    assert "*.safetensors" in seen["patterns"]
    pickles = ("pytorch_model.bin", "consolidated.00.pth", "optimizer.pt")
    assert not any(
        fnmatch.fnmatch(file, pattern) for file in pickles for pattern in seen["patterns"]
    )


def test_without_a_network_the_error_is_one_line(monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match=r"owner/name .*no route to host") as error:
        hub.resolve("owner/name")
    assert "\n" not in str(error.value)
