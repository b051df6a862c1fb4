"""Objects of a Google Cloud Storage bucket as paths: as much of pathlib as the project uses.

A bucket has no folders, no renaming and no appending; an object appears whole or not at all.
Listings are never cached, since other hosts write there too, and whatever goes wrong is one line:
`FileNotFoundError` for what is not there, `Trouble` for all else.
"""

import contextlib
import fnmatch
import functools
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils.epath.gpath import PosixGPath

SCHEME = "gs://"
_REACH_SECONDS = 15.0  # For the first answer; later requests are tried for longer.


class Trouble(OSError):
    """The bucket did not do what was asked of it: network, rights, quota."""


class Stat(NamedTuple):
    """What is known of an object, under the names that `os.stat` has for it."""

    st_size: int
    st_mtime: float


class BucketPath(PosixGPath):
    """A path `gs://bucket/name`. A folder is there while an object lies in it."""

    def exists(self) -> bool:
        """Whether an object or a folder is there. fsspec's own says no to a lost connection."""
        return self._info() is not None

    def is_dir(self) -> bool:
        """Whether something lies in it."""
        return (self._info() or {}).get("type") == "directory"

    def is_file(self) -> bool:
        """Whether it is an object."""
        return (self._info() or {}).get("type") == "file"

    def stat(self) -> Stat:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Size and time of writing."""
        found = self._info()
        if found is None:
            raise FileNotFoundError(f"{self} does not exist.")
        time = found.get("mtime")
        return Stat(found["size"], time.timestamp() if time else 0.0)

    def iterdir(self) -> Iterator["BucketPath"]:
        """What lies in it, by name."""
        with told(self):
            names = filesystem().ls(str(self), detail=False)
        # The entry of a folder that somebody made by hand has the folder's own name.
        paths = (BucketPath(SCHEME + name.rstrip("/")) for name in sorted(names))
        yield from (path for path in paths if path != self)

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """As pathlib's, by name. Patterns of one part list one folder, others all below it."""
        if "/" not in pattern and "**" not in pattern:
            with contextlib.suppress(FileNotFoundError):
                for path in self.iterdir():
                    if fnmatch.fnmatchcase(path.name, pattern):
                        yield path
            return
        with told(self):
            names = filesystem().glob(f"{self}/{pattern}")
        yield from (BucketPath(SCHEME + name) for name in sorted(names))

    def open(self, mode: str = "r", *, encoding: str | None = None, newline: str | None = None):  # pyright: ignore
        """An object to read, in "r" or "rb": as it is now, on this machine's disk.

        Objects cannot be opened to be changed: `places` writes them.
        """
        assert mode in ("r", "rb"), f"{self} cannot be opened in mode {mode!r}"
        with tempfile.TemporaryDirectory(prefix="jssd-") as folder:
            download(self, f"{folder}/object")
            raw = open(f"{folder}/object", "rb")  # noqa: SIM115 (the caller closes it)
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding or "utf-8", newline=newline)

    def read_bytes(self) -> bytes:
        """The whole object."""
        with told(self):
            return filesystem().cat_file(str(self))

    def read_text(self, encoding: str | None = None) -> str:
        """The whole object as text, with line ends as pathlib's has them."""
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8") as text:
            return text.read()

    def write_bytes(self, data: bytes) -> int:
        """Puts the object, whole, in one request."""
        with told(self):
            filesystem().pipe_file(str(self), bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As `write_bytes`."""
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object."""
        try:
            with told(self):
                filesystem().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = False) -> None:
        """Deletes all that lies in it."""
        for path in list(self.files()):
            path.unlink(missing_ok=True)

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders to make."""

    def files(self) -> dict["BucketPath", dict[str, Any]]:
        """All objects below it at any depth, or itself, each with what the bucket says of it."""
        with told(self):
            found = filesystem().find(str(self), detail=True)
        # The entry of a folder made by hand ends in "/".
        return {BucketPath(SCHEME + n): about for n, about in found.items() if n[-1] != "/"}

    def absolute(self) -> "BucketPath":
        """Itself."""
        return self

    resolve = expanduser = absolute  # pyright: ignore

    def _info(self) -> dict[str, Any] | None:
        try:
            with told(self):
                return filesystem().info(str(self))
        except FileNotFoundError:
            return None


def download(path: BucketPath, local: str | os.PathLike) -> None:
    """Writes an object to a file."""
    with told(path):
        filesystem().get_file(str(path), os.fspath(local))


def upload(local: str | os.PathLike, path: BucketPath) -> None:
    """Puts a file as an object, which appears when all of it is there."""
    with told(path):
        filesystem().put_file(os.fspath(local), str(path))


def check(path: BucketPath) -> None:
    """Asks the bucket for an answer, before any work is done.

    Raises:
      FileNotFoundError: there is no such bucket.
      Trouble: no answer, or no right to look into it.
    """
    import fsspec.asyn

    fs, bucket = filesystem(), path.parts[2] if len(path.parts) > 2 else ""
    try:
        with told(path):
            # Listing is what `storage.objectUser` may do; looking at the bucket itself is not.
            fsspec.asyn.sync(
                fs.loop, fs._call, "GET", "b/{}/o", bucket, maxResults=1, timeout=_REACH_SECONDS
            )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: there is no bucket {bucket!r}, or it is not yours to see. Make it with: "
            f"gcloud storage buckets create {SCHEME}{bucket}"
        ) from None
    except Trouble as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise Trouble(
            f"{path} is out of reach: {reason} Look at the network, and at the credentials: "
            "gcloud auth application-default login."
        ) from None


@functools.cache
def filesystem() -> Any:
    """The connection. Orbax makes one of its own, which this setting reaches as well."""
    import fsspec
    from fsspec.config import conf

    # Else what another host wrote, or the library's other user in this process, would not be seen.
    for name in ("gs", "gcs"):
        conf.setdefault(name, {})["use_listings_cache"] = False
    # It logs a stack for what is told here in a line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return fsspec.filesystem("gcs")


@contextlib.contextmanager
def told(path: BucketPath) -> Iterator[None]:
    """Turns whatever a request failed with into one line that names `path`."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except TimeoutError:  # Of fsspec, without a word.
        raise Trouble(f"{path}: no answer in time.") from None
    except Exception as error:  # Of four packages: gcsfs, aiohttp, google.auth, requests.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise Trouble(f"{path}: {reason}.") from error
