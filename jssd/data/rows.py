"""Rows of a problem set as plain dicts, each with the words that say where it stands."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jssd import jsonl, places
from jssd.config import PromptsConfig


def read(config: PromptsConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs (place, row) of `config.source`, a .jsonl or .parquet path or "hf:owner/name[/config]".

    Raises FileNotFoundError or ValueError that name the source, the place and the way out.
    """
    source = config.source
    if source.startswith("hf:"):
        return _hub_rows(source, config)
    if not source.endswith((".jsonl", ".parquet")):
        raise ValueError(
            f"prompts.source={source!r} must end in .jsonl or .parquet, or be "
            "'hf:owner/name[/config]' or 'tasks:train'."
        )
    if config.split != "train":
        raise ValueError(
            f"prompts.split={config.split!r} only fits an 'hf:' source. Leave it at 'train' for "
            f"{source}."
        )
    path = places.path(source)
    if not path.is_file():
        raise FileNotFoundError(f"prompts.source={source} doesn't exist. Check the path.")
    path = places.fetch(path)
    return jsonl.rows(path) if source.endswith(".jsonl") else _parquet_rows(path, config)


def _parquet_rows(path: Path, config: PromptsConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"prompts.source={path} needs pyarrow. Install it with: pip install 'jssd[parquet]'."
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow.names, str(path), config)
            number = itertools.count()
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    yield f"{path} row {next(number)}", row
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} can't be read as Parquet: {error}.") from error


def _hub_rows(source: str, config: PromptsConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"prompts.source={source} needs the datasets package. Install it with: pip install "
            "'jssd[hub]'."
        ) from error
    parts = source.removeprefix("hf:").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(
            f"prompts.source={source!r} must be 'hf:owner/name' or 'hf:owner/name/config'."
        )
    try:
        table = datasets.load_dataset(
            "/".join(parts[:2]), *parts[2:], split=config.split, revision=config.revision
        )
    except Exception as error:  # The library lets through errors of a dozen packages.
        raise ValueError(
            f"prompts.source={source} split {config.split!r} can't be loaded: "
            f"{' '.join(str(error).split())}. Check the name, the split and the network, or "
            "download it as a .parquet file and give its path."
        ) from error
    table = table.select_columns(_columns(table.column_names, source, config))
    for index, row in enumerate(table):
        yield f"{source} row {index}", dict(row)


def _columns(names: Sequence[str], where: str, config: PromptsConfig) -> list[str]:
    """The columns to read: answers and test cases may be a thousand times as large as these."""
    for setting in ("question_field", "id_field"):
        name = getattr(config, setting)
        if name and name not in names:
            raise ValueError(
                f"{where} has no column {name!r} (prompts.{setting}). It has: {', '.join(names)}."
            )
    wanted = {config.question_field, config.starter_code_field, config.id_field, "is_passed"}
    return [name for name in names if name in wanted]
