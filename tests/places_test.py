"""Files on disk and in a bucket: whole or not there, growing, copied to this machine; errors."""

import pathlib
import time

import pytest

from jssd import bucket as store
from jssd import growing, heartbeats, metrics, owner, places
from jssd.config import PromptsConfig
from jssd.data import rows, samples
from jssd.weights import hub
from tests.data.samples_test import SAMPLE


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """An empty folder."""
    if request.param == "disk":
        return tmp_path
    name = f"{request.node.originalname}-{time.monotonic_ns()}"
    return request.getfixturevalue("bucket") / name


def _fill(folder, names):
    for name in names:
        places.write_text(folder / name, f"text of {name}\n")


def test_users_text_becomes_a_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert places.path("~/runs/a") == pathlib.Path("/home/me/runs/a")
    there = places.path("gs://bucket/runs") / "a"
    assert str(there) == "gs://bucket/runs/a" and str(there.parent) == "gs://bucket/runs"
    assert str(there.with_name("b")) == f"{there.parent}/b"
    assert str(there.relative_to(there.parent)) == "a"
    assert [places.is_remote(p) for p in (there, there.parent, pathlib.Path("a"))] == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/run", "local path or gs://bucket/folder: s3:// is not read or written"),
        ("https://host/file", "https:// is not read"),
        ("gs:///run", "must name a bucket"),
    ],
)
def test_other_schemes_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        places.path(text)


def test_without_the_package_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gs://b/run needs a package.*pip install 'jssd\[gcs\]'"):
        places.path("gs://b/run")


def test_a_path_is_asked_as_pathlib_is(folder):
    _fill(folder, ["a.json", "sub/b.json", "sub/deep/c.txt"])
    assert (folder / "a.json").is_file() and not (folder / "a.json").is_dir()
    assert (folder / "sub").is_dir() and (folder / "sub").exists()
    assert not (folder / "none").exists() and not (folder / "none").is_dir()
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "sub"]
    found = {
        pattern: sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))
        for pattern in ("*.json", "*/*.json", "**/*.json", "none/*", "sub/*")
    }
    assert found == {
        "*.json": ["a.json"], "*/*.json": ["sub/b.json"], "**/*.json": ["a.json", "sub/b.json"],
        "none/*": [], "sub/*": ["sub/b.json", "sub/deep"],
    }  # fmt: skip
    assert (folder / "a.json").stat().st_size == len("text of a.json\n")
    assert abs((folder / "a.json").stat().st_mtime - time.time()) < 60
    (folder / "a.json").unlink()
    (folder / "a.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        (folder / "a.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        (folder / "a.json").read_text()


def test_text_is_read_as_it_was_written(folder):
    text = "one\r\ntwo\u2028still two\n"
    places.write_text(folder / "file", text)
    assert (folder / "file").read_bytes() == text.encode()
    with (folder / "file").open(encoding="utf-8", newline="\n") as lines:
        assert list(lines) == ["one\r\n", "two\u2028still two\n"]
    with (folder / "file").open("rb") as lines:
        assert len(list(lines)) == 2


def test_what_another_writes_is_seen_at_once(bucket):
    here, place = bucket / "seen", bucket / "seen" / "file"
    _fill(here, ["first"])
    assert [path.name for path in here.iterdir()] == ["first"] and not place.exists()
    other = store.filesystem.__wrapped__()  # As Orbax has one of its own.
    other.pipe_file(str(place), b"x")
    assert place.exists() and {path.name for path in here.iterdir()} == {"first", "file"}


def test_a_log_grows_and_is_finished(folder):
    (folder).mkdir(exist_ok=True)
    log = growing.Log(folder / "log.partial", durable=True)
    log.write(b"b\n")
    log.write(b"a\n")
    log.close()
    again = growing.Log(folder / "log.partial")
    assert again.lines() == [b"b\n", b"a\n"]
    again.rewrite([b"a\n"])
    again.write(b"c\n")
    again.finish(folder / "log", sorted(again.lines(), reverse=True))
    assert (folder / "log").read_bytes() == b"c\na\n"
    assert [path.name for path in folder.iterdir()] == ["log"]


def test_in_a_bucket_a_log_is_put_now_and_then_and_at_the_end(bucket, monkeypatch):
    place, now = bucket / "log", [0.0]
    monkeypatch.setattr(growing.time, "monotonic", lambda: now[0])
    log = growing.Log(place)
    log.write(b"1\n")
    assert not place.exists() and log.pending
    now[0] = growing.PUT_SECONDS
    log.write(b"2\n")
    assert place.read_bytes() == b"1\n2\n" and not log.pending
    log.write(b"3\n")
    assert place.read_bytes() == b"1\n2\n"
    log.close()
    assert place.read_bytes() == b"1\n2\n3\n"
    log.write(b"4\n")  # Goes on.
    log.close()
    assert place.read_bytes() == b"1\n2\n3\n4\n"


def test_a_log_outlives_a_bucket_that_fails_for_a_while(bucket, monkeypatch, capsys):
    log = growing.Log(bucket / "log2")
    monkeypatch.setattr(growing, "PUT_SECONDS", 0.0)
    with monkeypatch.context() as broken:

        def refuse(*_):
            raise places.Trouble("no network.")

        broken.setattr(growing, "upload", refuse)
        log.write(b"1\n")
        assert "no network. It is tried again." in capsys.readouterr().err
        with pytest.raises(places.Trouble):
            log.close()
    log.write(b"2\n")
    log.close()


def test_samples_and_metrics_are_alike_in_both(folder):
    with samples.SampleWriter(folder / "part-00000.jsonl") as writer:
        writer.write([SAMPLE])
    with samples.SampleWriter(folder / "part-00000.jsonl") as writer:
        assert writer.records == [SAMPLE]
        writer.finish()
    assert samples.read_folder(folder) == [SAMPLE]
    samples.verify(folder, samples.list_parts(folder))
    with metrics.Writer(folder) as log:
        for step in (1, 2, 3):
            log.scalars(step, {"loss": float(step)})
    with metrics.Writer(folder) as log:
        log.resume(2)
        log.scalars(3, {"loss": 30.0})
    assert [row["loss"] for row in metrics.read_scalars(folder)] == [1.0, 2.0, 30.0]
    assert all(path.stat().st_size for path in (folder / "tensorboard").iterdir())


def test_a_finished_part_beside_its_partial_counts(bucket):
    folder = bucket / "both"  # A kill between putting the one and deleting the other.
    for name in ("part-00000.jsonl", "part-00000.jsonl.partial"):
        places.write_text(folder / name, samples.to_line(SAMPLE) + "\n")
    assert samples.read_folder(folder) == [SAMPLE]


def test_a_folder_is_published_whole(folder):
    with places.publishing(folder / "export") as scratch:
        (scratch / "sub").mkdir()
        for name in ("a", "sub/b"):
            (scratch / name).write_text(name)
        assert not places.is_whole(folder / "export")
    assert places.is_whole(folder / "export")
    assert (folder / "export" / "sub" / "b").read_text() == "sub/b"
    assert [path.name for path in folder.iterdir()] == ["export"]


def test_a_folder_cut_short_is_not_whole_and_is_written_anew(bucket, monkeypatch):
    folder, put = bucket / "cut" / "export", store.upload
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):

        def stop_at_b(local, place):
            if place.name == "b":
                raise KeyboardInterrupt
            put(local, place)

        broken.setattr(places, "upload", stop_at_b)
        with places.publishing(folder) as scratch:
            for name in ("a", "b", "left over"):
                (scratch / name).write_text(name)
    assert folder.exists() and not places.is_whole(folder)
    with pytest.raises(FileNotFoundError, match="cut short"):
        hub.resolve(str(folder))
    with places.publishing(folder) as scratch:
        (scratch / "a").write_text("new")
    assert places.is_whole(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "new"}


def test_an_input_is_copied_once_and_again_where_it_changed(bucket, monkeypatch):
    model = bucket / "fetched" / "model"
    _fill(model, ["config.json", "a.safetensors", "old.bin"])
    asked = []
    get = store.download
    monkeypatch.setattr(
        places, "download", lambda place, file: (asked.append(place.name), get(place, file))
    )
    copy = hub.resolve(str(model))
    assert copy.name == "model" and {path.name for path in copy.iterdir()} == {
        "config.json", "a.safetensors"  # Pickled weights never travel.
    }  # fmt: skip
    assert hub.resolve(str(model)) == copy and sorted(asked) == ["a.safetensors", "config.json"]
    places.write_text(model / "config.json", "text of another one\n")
    (model / "a.safetensors").unlink()
    _fill(model, ["b.safetensors"])
    asked.clear()
    assert {path.name for path in hub.resolve(str(model)).iterdir()} == {
        "config.json", "b.safetensors"
    }  # fmt: skip
    assert sorted(asked) == ["b.safetensors", "config.json"]
    assert (copy / "config.json").read_text() == "text of another one\n"
    assert places.fetch(model / "config.json").read_text() == "text of another one\n"
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        places.fetch(bucket / "none")
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        hub.resolve(f"{bucket}/none")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl doesn't exist"):
        list(rows.read(PromptsConfig(source=f"{bucket}/none.jsonl")))


def test_a_name_that_leads_out_of_a_folder_is_refused(bucket, monkeypatch):
    bad = places.path(f"{bucket}/bad")
    monkeypatch.setattr(store.BucketPath, "files", lambda _: {bad / "../../x": {"size": 1}})
    with pytest.raises(ValueError, match="leads out of it"):
        places.fetch(bad)


def test_trouble_is_not_taken_for_absence(bucket, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionResetError("reset by peer\nand more")

    monkeypatch.setattr(store.filesystem(), "info", refuse)
    with pytest.raises(places.Trouble, match=r"^gs://jssd-test/x: reset by peer\.$"):
        (bucket / "x").exists()


def test_a_bucket_is_owned_by_one_job_of_a_machine(bucket):
    workdir = bucket / "owned"
    with owner.owned(workdir), pytest.raises(ValueError, match="in use"), owner.owned(workdir):
        pass


def test_a_heartbeat_that_a_bucket_holds_up_holds_up_nothing(bucket, monkeypatch):
    entry = {"rank": 0, "time": 0.0, "ended": None}
    pulse = heartbeats.Pulse(bucket / "pulse")
    pulse.write(entry)
    pulse.write(entry | {"ended": 42})
    assert heartbeats.read(bucket / "pulse")[0]["ended"] == 42
    with monkeypatch.context() as slow:
        slow.setattr(heartbeats, "write", lambda *_: time.sleep(1.0))
        began = time.monotonic()
        for _ in range(10):
            pulse.write(entry)
        assert time.monotonic() - began < 0.9
    pulse.remove(0)
    assert heartbeats.read(bucket / "pulse") == []
