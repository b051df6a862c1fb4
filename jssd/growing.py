"""Files that grow line by line, on disk or in a bucket: samples under way, metrics, ledgers."""

import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from jssd.bucket import BucketPath, Trouble, download, upload
from jssd.places import write_bytes

PUT_SECONDS = 20.0  # At most so much of a growing file is missing from the bucket after a kill.
_SHARE = 10  # And no more than this part of the time goes into putting it there.


class Log:
    """A file that grows by whole lines.

    On disk each write is there on return. An object cannot grow: a copy on this machine does, and
    the whole is put at most every `PUT_SECONDS`, and on `close` or `finish`. A process that is
    killed takes what came after the last time with it.
    """

    def __init__(self, place: pathlib.Path, *, durable: bool = False):
        """
        Args:
          place: of the file; what it holds already stays.
          durable: a line on disk outlives a loss of power too.
        """
        self._place, self._durable = place, durable
        self._spool: IO[bytes] | None = None  # The copy, once it is needed.
        self._put_at, self._cost = time.monotonic(), 0.0
        self.pending = False  # Whether something is not in its place yet.
        if not isinstance(place, BucketPath):
            open(place, "ab").close()  # From the start it is seen that something is under way.

    def lines(self) -> list[bytes]:
        """What the file holds, with line ends; a last line without one was cut short by a kill."""
        if isinstance(self._place, BucketPath):
            spool = self._opened()
            spool.seek(0)
            return spool.readlines()
        if not self._place.exists():
            return []
        with open(self._place, "rb") as file:
            return file.readlines()

    def rewrite(self, lines: Sequence[bytes]) -> None:
        """Replaces all lines by others."""
        if not isinstance(self._place, BucketPath):
            write_bytes(self._place, b"".join(lines))
            return
        spool = self._opened()
        spool.seek(0)
        spool.truncate()
        spool.writelines(lines)
        self._put()

    def write(self, data: bytes) -> None:
        """Adds whole lines."""
        if not isinstance(self._place, BucketPath):
            with open(self._place, "ab") as file:
                file.write(data)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            return
        spool = self._opened()
        spool.seek(0, os.SEEK_END)
        spool.write(data)
        self.pending = True
        if time.monotonic() - self._put_at >= max(PUT_SECONDS, _SHARE * self._cost):
            try:
                self._put()
            except Trouble as error:  # For now: what is put at the end has these lines too.
                print(f"{error} It is tried again.", file=sys.stderr, flush=True)
                self._put_at = time.monotonic()

    def flush(self) -> None:
        """Nothing: `write` has its own times. TensorBoard's writer asks for it."""

    def finish(self, target: pathlib.Path, lines: Sequence[bytes]) -> None:
        """Puts `lines` at `target`, whole, and does away with the log."""
        if isinstance(self._place, BucketPath):
            write_bytes(target, b"".join(lines))
            self._place.unlink(missing_ok=True)
            self.pending = False
            self.close()
            return
        write_bytes(self._place, b"".join(lines))
        os.replace(self._place, target)
        _sync_folder(target.parent)

    def close(self) -> None:
        """Puts what is not in its place yet. Later calls go on."""
        try:
            if self.pending:
                self._put()
        finally:
            if self._spool is not None:
                self._spool.close()
                os.unlink(self._spool.name)
                self._spool = None

    def _opened(self) -> IO[bytes]:
        if self._spool is None:
            assert isinstance(self._place, BucketPath)
            handle, name = tempfile.mkstemp(prefix="jssd-")
            os.close(handle)
            with contextlib.suppress(FileNotFoundError):
                download(self._place, name)
            self._spool = open(name, "a+b")  # noqa: SIM115 (until `close`)
            self._put_at = time.monotonic()
        return self._spool

    def _put(self) -> None:
        assert isinstance(self._place, BucketPath) and self._spool is not None
        self._spool.flush()
        began = time.monotonic()
        upload(self._spool.name, self._place)
        self._put_at = time.monotonic()
        self._cost = self._put_at - began
        self.pending = False


def _sync_folder(folder: pathlib.Path) -> None:
    # A rename itself lives in the folder's data.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
