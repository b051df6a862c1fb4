"""The sample record: one JSON line per completion, with all that is needed to train on exactly what
was drawn.

Lines are a pure function of the record (fixed key order, no spaces, floats as the shortest text of
their float32), so equal runs write equal bytes. A file under way is `<name>.partial`; it gets its
own name when its writer is done.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jssd import growing, places


@dataclasses.dataclass(frozen=True)
class Sample:
    """One completion and how it was drawn.

    `token_ids` is the completion with its stop token when `finish_reason` is "stop". `logprobs` are
    those of the untruncated model at temperature 1, one per token. `support_ids` is flat: the ids
    each draw could have taken, so many per token as `support_sizes` says, where 0 means the whole
    vocabulary and -1 too many to store. Both are empty when supports were not kept. `support_probs`
    are the law's probabilities of `support_ids`, for soft targets; without them a line lacks the
    field.
    """

    prompt_id: str
    sample: int
    prompt: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str
    logprobs: list[float]
    support_sizes: list[int]
    support_ids: list[int]
    finish_reason: str
    sampling: dict[str, float | int]
    seed: int
    fingerprint: str
    template: str
    support_probs: list[float] = dataclasses.field(default_factory=list)


MANIFEST = "manifest.json"  # What a finished folder holds.
FIELDS = tuple(field.name for field in dataclasses.fields(Sample))
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens")


def to_line(sample: Sample) -> str:
    """The record as one JSON line, without its newline. Raises ValueError for a record that breaks
    the format.
    """
    tree = {name: getattr(sample, name) for name in FIELDS}
    _check(tree, f"sample {sample.prompt_id!r} number {sample.sample}")
    tree["logprobs"] = [float(str(value)) for value in np.asarray(sample.logprobs, np.float32)]
    tree["sampling"] = {name: sample.sampling[name] for name in _SAMPLING}
    probs = tree.pop("support_probs")
    if probs:
        tree["support_probs"] = [float(str(value)) for value in np.asarray(probs, np.float32)]
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_line(line: str, where: str) -> Sample:
    """The record in `line`. Raises ValueError that opens with `where` (file:line) and names the
    field at fault.
    """
    try:
        tree = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{where} isn't valid JSON: {error}. Delete the line or the file."
        ) from error
    if not isinstance(tree, dict):
        raise ValueError(f"{where} must be a JSON object, not a {type(tree).__name__}.")
    tree.setdefault("support_probs", [])
    for name in FIELDS:
        if name not in tree:
            raise ValueError(f"{where} lacks field {name!r}.")
    for name in tree:
        if name not in FIELDS:
            raise ValueError(f"{where} has unknown field {name!r}.")
    _check(tree, where)
    return Sample(**tree)


def _check(tree: dict[str, Any], where: str) -> None:
    """Raises ValueError naming the first field that breaks the format."""

    def rule(ok: bool, name: str, must: str) -> None:
        if not ok:
            value = repr(tree[name])
            shown = value if len(value) <= 60 else value[:57] + "..."
            raise ValueError(f"{where}: {name} {must}, not {shown}.")

    for name in ("prompt_id", "prompt", "text", "fingerprint", "template"):
        rule(isinstance(tree[name], str), name, "must be text")
    for name in ("sample", "seed"):
        rule(_is_int(tree[name]), name, "must be a whole number")
    rule(tree["sample"] >= 0, "sample", "must be 0 or more")
    for name in ("prompt_token_ids", "token_ids"):
        value = tree[name]
        rule(_are_ints(value, 0) and len(value) > 0, name, "must be a list of token ids, not empty")
    count = len(tree["token_ids"])
    logprobs = tree["logprobs"]
    rule(
        isinstance(logprobs, list)
        and all(type(value) is float and math.isfinite(value) for value in logprobs)
        and len(logprobs) == count,
        "logprobs",
        f"must hold {count} finite numbers, one per token",
    )
    sizes = tree["support_sizes"]
    rule(
        _are_ints(sizes, -1) and len(sizes) in (0, count),
        "support_sizes",
        f"must hold {count} sizes of -1 or more, one per token, or none",
    )
    stored = np.maximum(np.asarray(sizes, np.int64), 0)
    total = int(stored.sum())
    rule(
        _are_ints(tree["support_ids"], 0) and len(tree["support_ids"]) == total,
        "support_ids",
        f"must hold {total} token ids, as support_sizes adds up to",
    )
    if total:
        kept = stored > 0
        hits = np.asarray(tree["support_ids"]) == np.repeat(tree["token_ids"], stored)
        starts = (np.cumsum(stored) - stored)[kept]
        rule(
            bool(np.logical_or.reduceat(hits, starts).all()),
            "support_ids",
            "must hold each token that was drawn",
        )
    probs = tree["support_probs"]
    fits = isinstance(probs, list) and len(probs) in (0, total)
    rule(
        fits and all(type(p) is float and 0 <= p <= 1 for p in probs),
        "support_probs",
        f"must hold {total} probabilities, one per id of support_ids, or none",
    )
    if probs:
        sums = np.add.reduceat(np.asarray(probs), (np.cumsum(stored) - stored)[stored > 0])
        rule(bool(np.abs(sums - 1).max() < 1e-3), "support_probs", "must add up to 1 at each token")
    rule(tree["finish_reason"] in ("stop", "length"), "finish_reason", "must be 'stop' or 'length'")
    sampling = tree["sampling"]
    rule(
        isinstance(sampling, dict)
        and sorted(sampling) == sorted(_SAMPLING)
        and all(type(value) in (float, int) for value in sampling.values()),
        "sampling",
        f"must hold the numbers {', '.join(_SAMPLING)}",
    )


def _is_int(value: Any) -> bool:
    return type(value) is int  # A bool is an int to isinstance.


def _are_ints(values: Any, least: int) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= least for v in values)


class SampleWriter:
    """Appends records to `<path>.partial` and renames it to `path` when finished. Survives a kill
    at any moment.

    In a bucket the partial file is a little behind (`growing.Log`): what a kill takes is drawn
    again.

    Attributes:
      records: the complete records that an earlier run left, in file order; a torn last line was
        cut off.
    """

    def __init__(self, path: str | Path):
        """Raises FileExistsError when `path` is complete, ValueError when a line before the last is
        corrupt.
        """
        self.path = places.path(path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        if self.path.exists():
            raise FileExistsError(f"{self.path} is complete. Delete it to sample again.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._log = growing.Log(self._partial, durable=True)
        try:
            self.records = self._recover()
        except ValueError:
            self._log.close()
            raise

    @property
    def pending(self) -> bool:
        """Whether records wait on this machine to be put into a bucket."""
        return self._log.pending

    def write(self, samples: Iterable[Sample]) -> None:
        """Appends records; on return they are on disk. Either all of a bad batch's lines are
        written or none.
        """
        self._log.write("".join(to_line(sample) + "\n" for sample in samples).encode())

    def finish(self) -> None:
        """Closes the file, sorts its lines by prompt id and sample number, and renames it.

        Completions end in an order that a kill and a restart change; sorted, the bytes are the
        same.
        """
        self._log.finish(self.path, sorted(self._log.lines(), key=_address))

    def close(self) -> None:
        """Closes the file; what was written stays in the partial file for a later writer."""
        self._log.close()

    def __enter__(self) -> "SampleWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _recover(self) -> list[Sample]:
        lines = self._log.lines()
        whole = [raw for raw in lines if raw.endswith(b"\n")]
        records = [_decode(raw, f"{self._partial}:{i}") for i, raw in enumerate(whole, 1)]
        if len(whole) < len(lines):  # Torn: the run that wrote it was killed here.
            self._log.rewrite(whole)
        return records


def _address(raw: bytes) -> tuple[str, int]:
    tree = json.loads(raw)
    return tree["prompt_id"], tree["sample"]


def iter_file(path: str | Path) -> Iterator[Sample]:
    """The records of one finished file, in order. Raises ValueError naming file, line and field."""
    with places.path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield _decode(raw, f"{path}:{number}")


def list_parts(folder: str | Path) -> list[dict[str, str | int]]:
    """Name, number of records, bytes and SHA-256 of every finished file of `folder`, by name."""
    parts = []
    for path in sorted(places.path(folder).glob("part-*.jsonl")):
        digest, records = hashlib.sha256(), 0
        with path.open("rb") as file:
            for raw in file:
                digest.update(raw)
                records += 1
        size = path.stat().st_size
        parts.append(
            {"file": path.name, "records": records, "bytes": size, "sha256": digest.hexdigest()}
        )
    return parts


def verify(folder: str | Path, parts: list[dict[str, str | int]]) -> None:
    """Raises ValueError naming the files that are not as `list_parts` once found them."""
    found = {part["file"]: part for part in list_parts(folder)}
    wanted = {part["file"]: part for part in parts}
    changed = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if changed:
        raise ValueError(
            f"{folder}: {', '.join(map(str, changed))} changed since sampling ended. Restore them, "
            f"or, if the change is meant, delete {MANIFEST} and run stage sample again."
        )


def _decode(raw: bytes, where: str) -> Sample:
    try:
        line = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} isn't valid UTF-8: {error}. Delete the line or the file."
        ) from error
    return from_line(line, where)


def read_folder(folder: str | Path) -> list[Sample]:
    """All records of `part-*.jsonl` in name order.

    Raises FileNotFoundError without any, ValueError while a part is unfinished, a line is corrupt,
    or the same prompt and sample number comes twice.
    """
    folder = places.path(folder)
    # In a bucket the kill of a writer that was done may leave both.
    unfinished = [
        path
        for path in sorted(folder.glob("part-*.jsonl.partial"))
        if not path.with_suffix("").exists()
    ]
    if unfinished:
        raise ValueError(
            f"{unfinished[0]}: sampling isn't finished. Run stage sample again to go on."
        )
    parts = sorted(folder.glob("part-*.jsonl"))
    if not parts:
        raise FileNotFoundError(
            f"{folder} holds no samples (part-*.jsonl). Run stage sample first."
        )
    seen: dict[tuple[str, int], str] = {}
    samples = []
    for part in parts:
        for number, sample in enumerate(iter_file(part), 1):
            key, where = (sample.prompt_id, sample.sample), f"{part}:{number}"
            if key in seen:
                raise ValueError(
                    f"{where}: prompt {key[0]!r} sample {key[1]} is also at {seen[key]}. Delete "
                    "one of them."
                )
            seen[key] = where
            samples.append(sample)
    return samples
