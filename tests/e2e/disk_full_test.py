"""A disk that is full at some write of a run: one line and exit code 1, nothing lost, and a rerun
ends in the same bytes.

In this process, with what Python asks of the system made to fail: what Orbax's arrays go through is
not Python (tests/weights/checkpoint_test.py), and `ulimit` fails real writes (mistakes_test.py).
JSSD_FAULTS=1 fails each kind of write to each file of a run, and not only some.
"""

import builtins
import errno
import io
import os
import pathlib
import re

import pytest

from jssd import main
from tests.e2e import conftest

STAGES = ["sample", "sft", "export", "evaluate"]
# (what is asked of the system, of which file), in the order of a run.
SOME = [
    ("replace", "config.json.N.tmp"),
    ("fsync", "samples/part-N.jsonl.partial"),
    ("open", "train/metrics.jsonl"),
    ("replace", "checkpoints/N.orbax-checkpoint-tmp"),
    ("open", ".export.partial/model.safetensors"),
    ("open", "eval/tasks/greedy/base/verdicts.jsonl.partial"),
    ("replace", "eval/comparisons.json.N.tmp"),
]


class Disk:
    """What is asked of the system to write under a folder; room for each of `refused` only the
    second time.

    Attributes:
      refused: those still to come, or None for each that was not refused before.
      seen: all that were asked, in order.
    """

    def __init__(self, folder: pathlib.Path, refused: list[tuple[str, str]] | None):
        self.folder, self.refused = folder, refused
        self.seen: list[tuple[str, str]] = []
        self._told: set[tuple[str, str]] = set()
        self.last: tuple[str, str] | None = None

    def asked(self, kind: str, path) -> bool:
        """Whether it is refused."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fspath(path))
        if not path.startswith(f"{self.folder}/"):
            return False
        name = os.path.relpath(path, self.folder)
        name = re.sub(r"\.[^./]*-\d+\.tmp$", ".N.tmp", name)  # Of a host's process.
        key = (kind, re.sub(r"\d+", "N", name))
        self.seen.append(key)
        if key in self._told or (self.refused is not None and key not in self.refused):
            return False
        self._told.add(key)
        self.last = key
        return True

    def install(self, patch: pytest.MonkeyPatch) -> None:
        known_open = io.open

        def full(path) -> OSError:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *path)

        def open_(file, mode="r", *args, **kwargs):
            found = known_open(file, mode, *args, **kwargs)
            if set(mode) & set("wax+") and not isinstance(file, int) and self.asked("open", file):
                found.close()  # The file is there, and nothing in it.
                raise full([str(file)])
            return found

        def failing(kind, known, place=0):
            def call(*args, **kwargs):
                if self.asked(kind, args[place]):
                    raise full([] if kind == "fsync" else [str(args[place])])
                return known(*args, **kwargs)

            return call

        patch.setattr(io, "open", open_)
        patch.setattr(builtins, "open", open_)
        patch.setattr(os, "fsync", failing("fsync", os.fsync))
        patch.setattr(os, "mkdir", failing("mkdir", os.mkdir))
        for name in ("replace", "rename"):
            patch.setattr(os, name, failing("replace", getattr(os, name)))


def _finished(workdir: pathlib.Path) -> dict[str, bytes]:
    found = conftest.outputs(workdir)
    return {name: data for name, data in found.items() if not name.endswith((".partial", ".tmp"))}


@pytest.fixture
def config(tiny, one_device):
    config = conftest.load_config(tiny)
    config.prompts.limit = config.train.num_steps = 4
    config.evaluate.limit = 2
    return config


def test_a_full_disk_at_any_write_is_one_line_and_loses_nothing(
    config, tmp_path, monkeypatch, capsys
):
    straight, workdir = tmp_path / "straight", tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        whole = Disk(straight, [])
        whole.install(patch)
        main.run_stages(config, straight, STAGES)
    wanted = _finished(straight)
    assert "export/model.safetensors" in wanted and "eval/comparisons.json" in wanted
    missing = [key for key in SOME if key not in whole.seen]
    assert not missing, f"no run does {missing}, but {whole.seen}"

    monkeypatch.setattr(main, "_workdir", lambda: workdir)
    disk = Disk(workdir, None if "JSSD_FAULTS" in os.environ else SOME)
    disk.install(monkeypatch)
    failures = []
    while True:
        before, disk.last = _finished(workdir), None
        try:
            main.run_stages(config, workdir, STAGES)
        except OSError as error:
            assert disk.last and "No space left" in str(error), error
            failures.append(disk.last)
            capsys.readouterr()
            with pytest.raises(SystemExit) as left:
                main._leave(error, 1)
            line = capsys.readouterr().err
            assert left.value.code == 1 and line.count("\n") == 1 and "No space left" in line
            assert str(workdir) in line and "run the same command again" in line
        else:
            if disk.last is None:  # Or where it does not matter, as for files of another format.
                break
        now = _finished(workdir)
        assert {name: now.get(name) for name in before} == before, disk.last
    assert _finished(workdir) == wanted
    assert set(SOME) <= set(failures), f"{set(SOME) - set(failures)} did not end the run"
