"""The tests of a LiveCodeBench problem: from stored text to arguments and expected results."""

import base64
import io
import json
import pickle
import zlib
from typing import Any

_LIMIT = 1 << 30  # Bytes of one problem's tests: far above any real one.


def decode_tests(text: str) -> list[dict[str, Any]]:
    """A problem's tests: JSON, or JSON in a pickled string, compressed by zlib, as base64.

    Only a string is unpickled: anything that names a class or a function is refused, so data from a
    stranger runs nothing. Raises ValueError for everything else.
    """
    if not text.lstrip().startswith("["):
        try:
            unzip = zlib.decompressobj()
            data = unzip.decompress(base64.b64decode(text, validate=True), _LIMIT)
            if unzip.unconsumed_tail:
                raise ValueError(f"more than {_LIMIT} bytes")
            text = _TextUnpickler(io.BytesIO(data)).load()
        except Exception as error:  # pickle raises anything on malformed data.
            raise ValueError(f"tests can't be decoded: {error}") from error
        if not isinstance(text, str):
            raise ValueError(f"tests must be a pickled string, not a {type(text).__name__}")
    tests = json.loads(text)
    if not isinstance(tests, list) or not all(
        isinstance(test, dict)
        and isinstance(test.get("input"), str)
        and isinstance(test.get("output"), str)
        and test.get("testtype") in ("stdin", "functional")
        for test in tests
    ):
        raise ValueError("tests must be a list of objects with input, output and testtype")
    return tests


class _TextUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not a string")


def read_arguments(text: str, rule: str) -> list[Any]:
    """The arguments of one call: "json" reads a value a line, "text" as the paper's evaluator does.

    Raises ValueError where the text does not fit; by rule "text" such a test fails every program.
    """
    if rule == "json":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if "=" in text:
        values = []
        for pair in text.split(","):
            parts = pair.split("=")
            if len(parts) != 2:
                raise ValueError(f"{pair.strip()[:40]!r} is not one name = value pair")
            value = _number(parts[1].strip())
            values.append(value.strip('"') if isinstance(value, str) else value)
        return values
    values = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line.startswith('"') and line.endswith('"'):
            values.append(line.strip('"'))
        elif line.startswith("[") and line.endswith("]"):
            values.append(json.loads(line))
        else:
            values.append(_number(line))
    return values


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def expected_value(text: str) -> Any:
    """What a call must return: the JSON value, or the text itself where it is none."""
    try:
        return json.loads(text.strip())
    except ValueError:
        return text.strip()
