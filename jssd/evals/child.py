"""One child process: what is written to it and read from it, under deadlines and size limits.

Nothing here trusts the child: reads never wait for an end of file that a left-over process could
hold back, and never keep more than the limit.
"""

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path

# For every interpreter started here: no site packages, nothing from the environment, UTF-8.
PYTHON_FLAGS = ("-P", "-S", "-s", "-B", "-X", "utf8")
OUTPUT_LIMIT = 2 << 20  # Bytes of one reply, of all standard output of a script, or of all errors.
_TAIL = 4096  # Bytes of standard error kept for the explanation.
_TICK = 0.05  # Seconds between looks at a process whose pipes are held open by others.


class Failure(Exception):
    """Why a run ended before it had an answer: a verdict and one line of detail."""

    def __init__(self, verdict: str, detail: str):
        super().__init__(f"{verdict}: {detail}")
        self.verdict, self.detail = verdict, detail


@functools.cache
def joined_text(*names: str, main: str) -> str:
    """The text of files of this room as one program that ends in a call of `main`.

    Imports of jssd are left out: what they name stands in an earlier file.
    """
    here = Path(__file__).parent
    lines = [
        line
        for name in names
        for line in (here / name).read_text(encoding="utf8").splitlines()
        if not line.startswith("from jssd.")
    ]
    return "\n".join([*lines, f"{main}()"])


class Child:
    """A running process with three pipes. Use as a context manager: leaving kills its group."""

    def __init__(
        self,
        command: list[str],
        *,
        cwd: str,
        env: dict[str, str],
        uid: int | None = None,
        output_limit: int = OUTPUT_LIMIT,
    ):
        self._output_limit = output_limit
        # No preexec_fn: it can deadlock in a process with threads, and JAX has many.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=cwd,
            env=env,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)
        os.set_blocking(self._stdin.fileno(), False)
        # Under another user id, open("/dev/stdin") opens this pipe anew, and so needs the right to.
        os.fchmod(self._stdin.fileno(), 0o666)
        self._to_send, self._closing = memoryview(b""), False
        self._out, self._err_tail, self._err_size = bytearray(), b"", 0
        self._num_readable = 2
        self._ended_for: Failure | None = None
        self.pid = process.pid

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def end(self, failure: Failure) -> None:
        """Kills its group for a reason, which reads then raise. Other threads may call it."""
        self._ended_for = self._ended_for or failure
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Queues bytes for standard input; `last` closes it after them. Reading moves them."""
        assert not self._closing
        self._to_send, self._closing = memoryview(bytes(self._to_send) + data), last
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._stdin)
        self._selector.register(self._stdin, selectors.EVENT_WRITE)

    def wait_ready(self, mark: bytes, seconds: float) -> None:
        """Returns once standard error holds `mark`, and forgets what came up to it.

        Raises RuntimeError when the child ends or the time is over first: the machinery is broken,
        not the program.
        """
        deadline = time.monotonic() + seconds
        while mark not in self._err_tail:
            if not self._pump(deadline) and mark not in self._err_tail:
                said = self.error_text() or self._ended_for or f"nothing said for {seconds:g} s"
                raise RuntimeError(f"the sandbox did not start: {said}")
        self._err_tail = self._err_tail.split(mark, 1)[1]

    def read_line(self, deadline: float) -> bytes:
        """The next line of standard output, without its newline.

        Raises Failure: "timeout", "output_limit", or "runtime_error" when the child ended instead.
        """
        start = 0
        while (end := self._out.find(b"\n", start)) < 0:
            start = len(self._out)
            if not self._pump(deadline):
                if time.monotonic() >= deadline:
                    raise Failure("timeout", "no answer in time")
                raise self._died()
        line = bytes(self._out[:end])
        del self._out[: end + 1]
        return line

    def read_all(self, deadline: float) -> bytes:
        """All of standard output, once the child has ended with status 0.

        Raises Failure: "timeout", "output_limit", "memory" or "runtime_error".
        """
        while self._pump(deadline):
            pass
        if time.monotonic() >= deadline and self._process.poll() is None:
            raise Failure("timeout", "still running when its time was over")
        if self._process.wait() != 0:
            raise self._died()
        return bytes(self._out)

    def error_text(self) -> str:
        """The last line on standard error so far, at most 300 characters."""
        lines = self._err_tail.decode("utf8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]

    def _died(self) -> Failure:
        status, said = self._process.wait(), self.error_text()
        if self._ended_for:
            return self._ended_for
        if status in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            return Failure("timeout", "used up its processor time")
        if said.startswith("MemoryError"):
            return Failure("memory", said)
        return Failure("runtime_error", said or f"ended early with status {status}")

    def _pump(self, deadline: float) -> bool:
        """Moves what is ready in the pipes. False once the child has ended or the time is over."""
        ended = (
            self._process.poll() is not None
        )  # Before reading: its last words are then all there.
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        patience = 0 if ended else min(left, _TICK)
        if self._num_readable == 0 and patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            patience = 0
        moved = False
        for key, _ in self._selector.select(patience):
            pipe = key.fileobj
            if pipe is self._stdin:
                self._write()
            else:
                moved |= self._read(pipe)
        return moved or not ended

    def _write(self) -> None:
        try:
            sent = os.write(self._stdin.fileno(), self._to_send[:65536])
            self._to_send = self._to_send[sent:]
        except BlockingIOError:
            return
        except OSError:  # The child closed its input: it does not want the rest.
            self._to_send = memoryview(b"")
        if not self._to_send:
            self._selector.unregister(self._stdin)
            if self._closing:
                self._stdin.close()

    def _read(self, pipe) -> bool:
        chunk = os.read(pipe.fileno(), 65536)
        if not chunk:
            self._selector.unregister(pipe)
            self._num_readable -= 1
            return False
        if pipe is self._stdout:
            self._out += chunk
        else:
            self._err_tail = (self._err_tail + chunk)[-_TAIL:]
            self._err_size += len(chunk)
        if max(len(self._out), self._err_size) > self._output_limit:
            raise Failure("output_limit", f"wrote more than {self._output_limit} bytes")
        return True
