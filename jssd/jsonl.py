"""Files of one JSON object a line, written by others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line that is not blank; `where` names file and line to people.

    Raises:
      ValueError: a line that is no JSON, or holds something else than an object.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(raw)
            except ValueError as error:  # Bad UTF-8 is a ValueError too.
                raise ValueError(f"{where} isn't valid JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where} must be a JSON object, not a {type(row).__name__}.")
            yield where, row
