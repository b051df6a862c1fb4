"""Runs untrusted programs: picks the strongest wall that works here, and leaves nothing behind.

A sandbox only produces output. Who compares it, and with what, is `grading.py`'s business and out
of the program's reach.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from jssd.evals import inside, watch, ways
from jssd.evals.child import OUTPUT_LIMIT, PYTHON_FLAGS, Child, Failure, joined_text
from jssd.evals.protocol import PACKAGES_PREAMBLE, PREAMBLES, Protocol

START_SECONDS = 30.0  # For the wall and the interpreter, before the program's own time begins.
FILE_BYTES = 1 << 20  # Largest file a program may write.
NUM_PROCESSES = 64  # Processes and threads a program may have at once.
NUM_FILES = 64

# Reserved for containers' and services' dynamic users and given to nobody by name.
_UIDS = range(60578, 61184)


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """A way to run programs that was seen to work on this machine."""

    way: str
    interpreter: ways.Interpreter

    def describe(self) -> str:
        """What is in use and what it does not protect from, in plain words."""
        packages = self.interpreter.packages
        found = f"numpy and pandas in {packages}" if packages else "the standard library only"
        return f"{ways.TOLD[self.way]} Programs find {found}."

    @contextlib.contextmanager
    def start(
        self,
        source: str,
        *,
        starter_code: str = "",
        entry_point: str = "",
        stdin: bytes = b"",
        protocol: Protocol | None = None,
        output_limit: int = OUTPUT_LIMIT,
        timeout: float,
        memory_mb: int,
    ) -> Iterator[Child]:
        """A child whose program starts now; leaving the context ends and removes all of it.

        Without `entry_point` the program is a script that reads `stdin`. With it, the child serves
        calls: it first answers how loading went, then one line for each line sent (see `inside`);
        imports and helpers of `starter_code` are in place before `source`. `protocol` says by which
        rules it runs. More than `output_limit` bytes of output end it.
        `timeout` here only bounds the processor time, in seconds; the reader keeps the deadline.
        `memory_mb` bounds the address space of each process, and the memory of all together.

        Raises RuntimeError when the sandbox itself does not start.
        """
        protocol = protocol or Protocol()
        packages = self.interpreter.packages
        limits = {
            "RLIMIT_AS": memory_mb << 20,
            "RLIMIT_CPU": math.ceil(timeout) + 1,
            "RLIMIT_FSIZE": FILE_BYTES,
            "RLIMIT_NOFILE": NUM_FILES,
            "RLIMIT_CORE": 0,
        }
        with self._place() as (folder, uid, token):
            if uid is not None or self.way != "rlimit":
                limits["RLIMIT_NPROC"] = NUM_PROCESSES
            elif os.geteuid() != 0:  # Counts what this user runs already; root is exempt from it.
                limits["RLIMIT_NPROC"] = NUM_PROCESSES + _num_own_tasks()
            orders = {
                "source": source,
                "starter_code": starter_code,
                "entry_point": entry_point,
                "preamble": PREAMBLES[protocol.preamble] + (PACKAGES_PREAMBLE if packages else ""),
                "packages": packages,
                "rules": protocol.orders(),
                "limits": limits,
            }
            data = json.dumps(orders).encode()
            text = joined_text("plain.py", "released.py", "inside.py", main="main")
            command = ways.command(
                self.way,
                self.interpreter,
                [self.interpreter.path, *PYTHON_FLAGS, "-c", text],
                root=folder,
                uid=uid if os.geteuid() == 0 else None,
            )
            walled = self.way in ("bwrap", "unshare")
            env = {
                "PATH": ways.SEARCH_PATH,
                "LANG": "C.UTF-8",
                "PYTHONHASHSEED": "0",  # Sets print in the same order every time.
                "HOME": "/tmp" if walled else folder,
                "TMPDIR": "/tmp" if walled else folder,
                "OPENBLAS_NUM_THREADS": "1",  # Each of its threads would count against the limits.
                _TOKEN: token,
            }
            with (
                Child(
                    command,
                    cwd="/" if walled else folder,
                    env=env,
                    uid=uid if self.way == "uid" else None,
                    output_limit=output_limit,
                ) as child,
                watch.together(child, self._finder(child.pid, uid, token), memory_mb),
            ):
                child.send(b"%010d" % len(data) + data)
                child.send(stdin, last=not entry_point)
                child.wait_ready(inside.READY, START_SECONDS)
                yield child

    def _finder(self, pid: int, uid: int | None, token: str) -> Callable[[], set[int]]:
        """What finds all processes of a program that runs below `pid`."""
        if self.way == "uid" and uid is not None:
            return functools.partial(watch.of_user, uid)
        if self.way == "rlimit":  # Without parents they are elsewhere; they still have the token.
            elsewhere = watch.marked(_mark(token))
            return lambda: watch.tree(pid) | elsewhere()
        return functools.partial(watch.tree, pid)  # Nothing leaves a namespace of processes.

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[str, int | None, str]]:
        """A fresh folder, a user id of its own where this process may change it, and a token."""
        token = uuid.uuid4().hex
        with contextlib.ExitStack() as stack:
            uid = None
            if self.way != "rlimit" and os.geteuid() == 0:
                uid = stack.enter_context(_free_uid())
            folder = tempfile.mkdtemp(prefix="jssd-sandbox-")
            stack.callback(_remove, folder)
            if self.way == "uid":
                assert uid is not None
                os.chown(folder, uid, uid)
                stack.callback(_sweep_user, uid)
            elif self.way == "rlimit":
                stack.callback(_kill_marked, token)
            yield folder, uid, token


_TOKEN = "JSSD_SANDBOX"


def open_sandbox(way: str = "auto", interpreter: ways.Interpreter | None = None) -> Sandbox:
    """The sandbox of the named way, or with "auto" of the strongest that works on this machine.

    A way counts as working once a program has run in it. Raises ValueError for an unknown way, and
    for one that does not work here, with the reason.
    """
    if way != "auto" and way not in ways.NAMES:
        raise ValueError(f"sandbox={way!r} is unknown. Choose auto, {', '.join(ways.NAMES)}.")
    reasons = []
    for name in ways.NAMES if way == "auto" else (way,):
        sandbox = Sandbox(name, interpreter or ways.this_interpreter())
        reason = why_not(sandbox)
        if not reason:
            return sandbox
        reasons.append(f"{name}: {reason}")
    raise ValueError(f"sandbox={way!r} does not work on this machine. {'; '.join(reasons)}.")


@functools.cache
def why_not(sandbox: Sandbox) -> str:
    """Why a sandbox does not work here, in one line; "" when a program ran in it. Asked once."""
    tools = ways.missing_tools(sandbox.way)
    if tools:
        return f"{', '.join(tools)} not installed"
    if sandbox.way == "uid" and os.geteuid() != 0:
        return "only root can run a program as another user"
    probe = (
        "import os\nopen('file', 'w').write(input())\nprint(open('file').read(), os.getpid() > 0)"
    )
    try:
        with sandbox.start(probe, stdin=b"probe\n", timeout=10.0, memory_mb=512) as child:
            said = child.read_all(time.monotonic() + 10)
    except (OSError, RuntimeError, subprocess.SubprocessError, Failure) as error:
        return " ".join(str(error).split())[:300]
    return "" if said == b"probe True\n" else f"the probe printed {said[:80]!r}"


@contextlib.contextmanager
def _free_uid() -> Iterator[int]:
    """A user id that no other sandbox on this machine uses meanwhile.

    The name of an abstract socket is the lock: it needs no file, and dies with its process.
    """
    for uid in _UIDS:
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0jssd-sandbox-{uid}")
        except OSError:
            lock.close()
            continue
        with lock:
            if not _has_name(uid):
                yield uid
                return
    raise RuntimeError(f"no free user id between {_UIDS.start} and {_UIDS.stop - 1}.")


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _sweep_user(uid: int) -> None:
    """Kills every process of a user id, then removes what it left in the shared folders."""
    # As that user, "all" is its own processes. One call leaves no gap to fork in.
    subprocess.run(
        ["/bin/sh", "-c", "kill -9 -1"],
        user=uid,
        group=uid,
        extra_groups=[],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock"):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        _remove(entry.path)


def _kill_marked(token: str, rounds: int = 50) -> None:
    """Kills processes that carry the token in their first environment, until none is found."""
    for _ in range(rounds):
        found = watch.marked(_mark(token))()
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.01)


def _mark(token: str) -> str:
    return f"{_TOKEN}={token}"


def _num_own_tasks() -> int:
    """Processes and threads this user runs now, which a per-user limit has to allow for."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                total += len(os.listdir(folder / "task"))
    return total


def _remove(path: str) -> None:
    """Removes a file or a tree, also one without rights or nested deeper than Python can follow."""
    with contextlib.suppress(OSError):
        # What the walled ways leave is always empty. A link must not lead chmod elsewhere.
        os.unlink(path) if os.path.islink(path) else os.rmdir(path)
        return
    for _ in range(3):  # A dying process may still have been writing.
        for tool in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*tool, "--", path], stderr=subprocess.DEVNULL, check=False)
        if not os.path.lexists(path):
            return
        time.sleep(0.02)
