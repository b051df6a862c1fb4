"""Tests of what a model's name resolves to."""

import fnmatch
import json
import os
import subprocess
import sys

import huggingface_hub
import pytest

from jssd.config import Config, ModelSource
from jssd.stages.context import Run
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


def test_offline_what_is_not_in_the_cache_is_one_clear_line_and_what_is_there_is_read(tmp_path):
    program = "from jssd.weights import hub; print(hub.resolve('owner/name'))"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ask = lambda: subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True
    )
    last = ask().stderr.strip().splitlines()[-1]
    assert "owner/name (revision main) is not in the hub's cache" in last
    assert "HF_HUB_OFFLINE=1" in last
    model = tmp_path / "hub/models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("a" * 40)
    (model / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (model / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    assert ask().stdout.strip() == str(model / "snapshots" / ("a" * 40))


def test_a_run_stays_with_the_commit_it_began_with(tmp_path, monkeypatch):
    branch = {"main": "1" * 40}

    def snapshot_download(repo_id, *, revision, allow_patterns):
        folder = tmp_path / "snapshots" / branch.get(revision, revision)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    run = Run(Config(model=ModelSource(path="owner/name")), tmp_path / "run", mesh=None)  # pyright: ignore
    began = run.base_folder()
    assert json.loads((tmp_path / "run/model.json").read_text()) == {
        "path": "owner/name", "revision": "main", "commit": "1" * 40
    }  # fmt: skip
    branch["main"] = "2" * 40
    assert run.base_folder() == began
    other = Run(Config(model=ModelSource(path="owner/name")), tmp_path / "later", mesh=None)  # pyright: ignore
    assert other.base_folder().name == "2" * 40
