"""SHA256SUMS of a model folder, as `sha256sum` writes and `sha256sum --check` reads it."""

import concurrent.futures
import hashlib
import pathlib

FILE = "SHA256SUMS"


def write(folder: pathlib.Path) -> None:
    """Writes the checksums of all files in `folder`, which holds no folders, but its model card:
    people add to that."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (FILE, "README.md"))
    lines = [f"{digest}  {name}\n" for name, digest in _digests(folder, names).items()]
    (folder / FILE).write_text("".join(lines), encoding="utf-8")


def verify(folder: pathlib.Path) -> None:
    """Reads every file that SHA256SUMS names. A folder without one has nothing to be held against.

    Raises:
      ValueError: names the files that are missing or have other bytes, or a line that is no
        checksum.
    """
    path = folder / FILE
    if not path.exists():
        return
    wanted = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        digest, mark, name = line[:64], line[64:66], line[66:]
        if mark not in ("  ", " *") or not name or name != pathlib.PurePath(name).name:
            raise ValueError(f"{path}:{number} is not a line of sha256sum. Make the folder again.")
        wanted[name] = digest
    missing = [name for name in wanted if not (folder / name).is_file()]
    found = _digests(folder, [name for name in wanted if name not in missing])
    changed = [name for name, digest in found.items() if digest != wanted[name]]
    if missing or changed:
        told = [f"{name} is missing" for name in missing]
        told += [f"{name} has other bytes than when it was written" for name in changed]
        raise ValueError(
            f"{folder}: {', '.join(told)}. Make the folder again, or delete {path} if the change "
            "is meant."
        )


def _digests(folder: pathlib.Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of each file, several at a time: hashing lets other threads run."""

    def digest(name: str) -> str:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(digest, names)))
