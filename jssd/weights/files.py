"""The files of a Hugging Face folder: JSON, and safetensors read in slices, written in a stream."""

import collections
import dataclasses
import json
import os
import pathlib
import struct
from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np
import safetensors

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# By rank in a file: the safetensors library lays wide types first, then goes by name. So do we.
DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def read_json(path: pathlib.Path) -> dict:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {path.parent} is not a whole model folder.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(value).__name__}.")
    return value


def write_json(path: pathlib.Path, value: dict) -> None:
    """Writes JSON the way the Hugging Face libraries do: indent 2, a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies and what it is, from the header of its file."""

    file: str
    code: str  # The safetensors dtype, "BF16" and so on.
    shape: tuple[int, ...]


class TensorFiles:
    """The tensors of a folder by name. Opening reads headers only."""

    def __init__(self, folder: pathlib.Path):
        """Reads every header.

        Raises:
          FileNotFoundError: no safetensors, or a shard that the index names is missing.
          ValueError: a broken file, or files and index that disagree. Lists every disagreement.
        """
        self.folder = folder
        self.tensors: dict[str, Stored] = {}
        self._open: dict[str, safetensors.safe_open] = {}
        weight_map = self._weight_map()
        for file in sorted(set(weight_map.values())) or [SINGLE_FILE]:
            handle = self._handle(file)
            for name in handle.keys():  # noqa: SIM118 (not a dict)
                part = handle.get_slice(name)
                self.tensors[name] = Stored(file, part.get_dtype(), tuple(part.get_shape()))
        self.release()
        found = {name: stored.file for name, stored in self.tensors.items()}
        if weight_map and found != weight_map:
            wrong = sorted(dict(found.items() ^ weight_map.items()))
            raise ValueError(
                f"{folder / INDEX_FILE} and its files disagree about {len(wrong)} tensors: "
                f"{shorten(wrong)}. Fetch the folder again."
            )

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """The part `index` of a tensor (all of it by default), in the dtype it is stored in."""
        stored = self.tensors[name]
        part = self._handle(stored.file).get_slice(name)
        return part[index or tuple(slice(None) for _ in stored.shape)]

    def release(self) -> None:
        """Closes the files, so that pages read so far no longer count as memory of this process."""
        self._open.clear()

    def _handle(self, file: str) -> safetensors.safe_open:
        if file not in self._open:
            path = self.folder / file
            try:
                self._open[file] = safetensors.safe_open(path, framework="np")
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{path} is missing, though {INDEX_FILE} names it. Fetch the folder again."
                ) from None
            except safetensors.SafetensorError as error:
                raise ValueError(
                    f"{path} is cut short or not a safetensors file ({error}). Fetch it again."
                ) from None
        return self._open[file]

    def _weight_map(self) -> dict[str, str]:
        """Tensor name -> file of the index, or an empty dict where one file holds everything."""
        if (self.folder / SINGLE_FILE).is_file():
            return {}
        if (self.folder / INDEX_FILE).is_file():
            weight_map = read_json(self.folder / INDEX_FILE).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise ValueError(f"{self.folder / INDEX_FILE} has no weight_map. Fetch it again.")
            outside = sorted({str(file) for file in weight_map.values() if not _is_plain(file)})
            if outside:
                raise ValueError(
                    f"{self.folder / INDEX_FILE} names files outside its folder: "
                    f"{shorten(outside)}."
                )
            return weight_map
        pickles = sorted(path.name for glob in _PICKLES for path in self.folder.glob(glob))
        if pickles:
            raise ValueError(
                f"{self.folder} holds {shorten(pickles)} but no safetensors. Pickled weights can "
                "run code and are "
                "not read: save the model again with transformers (it writes safetensors)."
            )
        raise FileNotFoundError(
            f"{self.folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}: no weights to read."
        )


@dataclasses.dataclass(frozen=True)
class Planned:
    """A tensor to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_tensors(
    folder: pathlib.Path,
    plan: Iterable[Planned],
    fetch: Callable[[str], np.ndarray],
    *,
    shard_bytes: int,
    is_writer: bool = True,
) -> None:
    """Writes tensors into one file if they fit in `shard_bytes`, else into shards with an index.

    Only one tensor is in memory at a time. `fetch` is called for every tensor in the order of
    writing, and also where `is_writer` is false: on many hosts all must take part in a gather,
    while one of them writes.
    """
    shards: list[list[Planned]] = [[]]
    size = 0  # Of the last shard.
    for tensor in plan:
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        file = SINGLE_FILE
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map.update({tensor.name: file for tensor in tensors})
        _write_file(folder / file, tensors, fetch, is_writer=is_writer)
    if len(shards) > 1 and is_writer:
        total = sum(tensor.nbytes for tensors in shards for tensor in tensors)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / INDEX_FILE, index)


def _write_file(path: pathlib.Path, tensors: list[Planned], fetch, *, is_writer: bool) -> None:
    """One safetensors file: the length of the header, the header, then the values without gaps."""
    rank = list(DTYPES.values()).index
    tensors = sorted(tensors, key=lambda tensor: (rank(tensor.dtype), tensor.name))
    if not is_writer:
        collections.deque((fetch(tensor.name) for tensor in tensors), maxlen=0)
        return
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it.
    offset = 0
    for tensor in tensors:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Values start at a multiple of 8.
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            value = fetch(tensor.name)
            assert (value.dtype, value.shape) == (tensor.dtype, tensor.shape), tensor.name
            file.write(np.ascontiguousarray(value).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def declared_dtype(plan: Iterable[Planned]) -> str:
    """The dtype that most bytes have, as config.json spells it, e.g. "bfloat16"."""
    sizes: collections.Counter[str] = collections.Counter()
    for tensor in plan:
        sizes[tensor.dtype.name] += tensor.nbytes
    return sizes.most_common(1)[0][0]


def shorten(names: list[str], limit: int = 12) -> str:
    """Names joined by commas, the rest counted."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _is_plain(file: object) -> bool:
    return isinstance(file, str) and pathlib.PurePath(file).name == file
