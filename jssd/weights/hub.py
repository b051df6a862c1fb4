"""From what a user names (a folder, a .gguf file, a hub id) to a path on this machine."""

import pathlib
import re

from jssd import phases, places

# Everything a run or an export needs; pickled weights never travel.
_WANTED = (
    "*.json",
    "*.safetensors",
    "*.jinja",
    "additional_chat_templates/*",
    "tokenizer.model",
    "*.txt",
    "README.md",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def resolve(path: str, revision: str = "main") -> pathlib.Path:
    """A local folder or .gguf file; a hub id, or what lies in a bucket, is downloaded or found in a
    cache.

    Args:
      path: a folder, a .gguf file, either of them in a bucket (gs://), or a hub id such as
        "Qwen/Qwen3-4B-Instruct-2507". What exists on disk wins.
      revision: commit, tag or branch of a hub id.

    Raises:
      FileNotFoundError: neither on disk nor on the hub, or the hub is out of reach.
      ValueError: a revision of a local path, or a file that is not .gguf.
    """
    local = places.path(path)
    if places.is_remote(local):
        if not places.is_whole(local):
            raise FileNotFoundError(f"{path} does not exist, or an export to it was cut short.")
        local = places.fetch(local, _WANTED, phases.beat)
    if local.exists():
        if revision != "main":
            raise ValueError(
                f"model.revision={revision!r} only means something for a hub id; {path} is on "
                "disk. Leave it 'main'."
            )
        if local.is_file() and local.suffix != ".gguf":
            raise ValueError(f"{path} must be a Hugging Face folder or a .gguf file.")
        return local
    if local.suffix == ".gguf" or not _HUB_ID.fullmatch(path):
        raise FileNotFoundError(
            f"{path} does not exist, and is not a hub id of the form owner/name."
        )
    import huggingface_hub  # Late: only hub ids need it.
    from huggingface_hub import constants

    try:
        folder = huggingface_hub.snapshot_download(
            path, revision=revision, allow_patterns=list(_WANTED)
        )
    except (
        Exception
    ) as error:  # Anything from a missing repository to no network; the way out is the same.
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError(
                f"{path} (revision {revision}) is not in the hub's cache of this machine, and "
                "HF_HUB_OFFLINE=1 keeps jssd from fetching it. Unset that, or download the folder "
                "by other means and name it."
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"{path} (revision {revision}) is neither a local path nor could it be fetched from "
            f"the hub: {reason} "
            "Check the name and the network, or download the folder by other means and name it."
        ) from None
    return pathlib.Path(folder)


def commit(folder: pathlib.Path) -> str:
    """The commit that a folder of the hub's cache is of; "" for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else ""
