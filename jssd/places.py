"""Where files lie: in a folder of this machine, or in a bucket, `gs://bucket/folder`.

Reading is alike in both. What differs is here: how a file or folder comes to be there whole, and
how an input that libraries open by name comes to this machine. `growing.py` has what is appended.
"""

import concurrent.futures
import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import filelock

from jssd.bucket import SCHEME, BucketPath, Trouble, check, download, upload

__all__ = ["Trouble"]  # For those who are told by `places` alone.

_AT_ONCE = 4  # Files that travel side by side.


def path(text: str | os.PathLike) -> pathlib.Path:
    """The path that a user wrote. One in a bucket is a `BucketPath`, which does what of
    `pathlib.Path` the project uses.

    Raises:
      ValueError: another scheme than gs://, or the package for it is not installed.
    """
    if isinstance(text, (pathlib.Path, BucketPath)):
        return cast(pathlib.Path, text)
    text = os.fspath(text)
    if wrong := scheme_error(text):
        raise ValueError(f"{text} {wrong}.")
    if not text.startswith(SCHEME):
        return pathlib.Path(text).expanduser()
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{text} needs a package. Install it with: pip install 'jssd[gcs]'.")
    return cast(pathlib.Path, BucketPath(text))


def scheme_error(text: str) -> str:
    """What is wrong with the scheme of a path, or ""."""
    scheme = re.match(r"([A-Za-z][\w+.-]*)://", text)
    if scheme is None or re.match(r"gs://[^/]", text):
        return ""
    if scheme[1] == "gs":
        return "must name a bucket, as in gs://bucket/folder"
    return f"must be a local path or gs://bucket/folder: {scheme[1]}:// is not read or written"


def is_remote(place: object) -> bool:
    """Whether a path lies in a bucket."""
    return isinstance(place, BucketPath)


def check_reach(place: pathlib.Path) -> None:
    """Raises FileNotFoundError for a bucket that is not there and OSError for one out of reach."""
    if isinstance(place, BucketPath):
        check(place)


def cache(place: pathlib.Path) -> pathlib.Path:
    """A folder of this machine for what goes with a place in a bucket; a local place itself."""
    if not isinstance(place, BucketPath):
        return place
    key = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    return cache_root() / f"{key}-{place.name}"


def cache_root() -> pathlib.Path:
    """The folder of this machine that holds all copies."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jssd"


def write_bytes(place: pathlib.Path, data: bytes) -> None:
    """Writes a file that appears whole: beside its place and renamed, or in one request."""
    if isinstance(place, BucketPath):
        place.write_bytes(data)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    # Shards may write the same file at the same time, on hosts that share nothing but the disk.
    beside = place.with_name(f"{place.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, place)


def write_text(place: pathlib.Path, text: str) -> None:
    """As `write_bytes`."""
    write_bytes(place, text.encode("utf-8"))


def is_whole(folder: pathlib.Path) -> bool:
    """Whether a folder made by `publishing` is there, and all of it."""
    if isinstance(folder, BucketPath):
        return folder.is_dir() and not _mark(folder).exists()
    return folder.exists()


@contextlib.contextmanager
def publishing(
    folder: pathlib.Path, on_files: Callable[[], object] = lambda: None
) -> Iterator[pathlib.Path]:
    """A fresh local folder to fill, which is in the place of `folder` once the block ends well.

    Locally it lies beside and is renamed. To a bucket its files go one after the other, while a
    mark beside `folder` says that they are not all there: `is_whole`.

    Args:
      folder: not there, or not whole.
      on_files: called between files, as a sign of life.
    """
    if not isinstance(folder, BucketPath):
        scratch = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        os.replace(scratch, folder)
        return
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="publishing-", dir=cache_root()) as name:
        scratch = pathlib.Path(name, folder.name)
        scratch.mkdir()
        yield scratch
        _mark(folder).write_text("This folder is being written, or was left half written.\n")
        folder.rmtree()
        files = [file for file in sorted(scratch.rglob("*")) if file.is_file()]
        _side_by_side(
            [(file, folder / str(file.relative_to(scratch))) for file in files], upload, on_files
        )
        _mark(folder).unlink()


def _mark(folder: BucketPath) -> BucketPath:
    return folder.with_name(f".{folder.name}.partial")


def fetch(
    place: pathlib.Path,
    only: Sequence[str] = ("*",),
    on_files: Callable[[], object] = lambda: None,
) -> pathlib.Path:
    """A file or folder on this machine, to be read: itself, or a copy of what lies in a bucket.

    A copy stays in the cache, under the same name. Of what was changed in the bucket it is made
    again, file by file.

    Args:
      only: patterns of the files wanted of a folder in a bucket.
      on_files: called between files, as a sign of life.

    Raises:
      FileNotFoundError: nothing lies there in the bucket.
    """
    if not isinstance(place, BucketPath):
        return place
    found = {
        _relative(file, place): about
        for file, about in place.files().items()
        if file == place or any(fnmatch.fnmatchcase(_relative(file, place), p) for p in only)
    }
    if not found:
        raise FileNotFoundError(f"{place} does not exist, or holds nothing that is read.")
    if outside := [name for name in found if ".." in pathlib.PurePosixPath(name).parts]:
        raise ValueError(f"{place} holds {outside[0]!r}, a name that leads out of it. Delete that.")
    home = cache(place)
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / ".lock"):
        _renew(place, home / place.name, found, on_files)
    return home / place.name


def _relative(file: BucketPath, place: BucketPath) -> str:
    return "" if file == place else str(file.relative_to(place))


def _renew(
    place: BucketPath, copy: pathlib.Path, found: dict[str, Any], on_files: Callable[[], object]
) -> None:
    """Makes `copy` hold the objects `found`, by their names in it, and nothing else."""
    index = copy.with_name(".index.json")
    had = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    state = {name: [about["size"], about.get("generation")] for name, about in found.items()}
    for name in had.keys() - state.keys():
        (copy / name).unlink(missing_ok=True)
    kept = {name: had[name] for name in state if had.get(name) == state[name]}
    kept = {name: about for name, about in kept.items() if (copy / name).is_file()}
    index.write_text(json.dumps(kept), encoding="utf-8")  # Half a file must not count as one.
    todo = [(place / name if name else place, copy / name) for name in state if name not in kept]
    for _, file in todo:
        file.parent.mkdir(parents=True, exist_ok=True)
    _side_by_side(todo, download, on_files)
    index.write_text(json.dumps(state), encoding="utf-8")


def _side_by_side(
    pairs: Sequence[tuple], move: Callable[[Any, Any], None], on_files: Callable[[], object]
) -> None:
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda pair: move(*pair), pairs):
            on_files()
