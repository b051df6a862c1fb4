"""One compile: a worker process, and its result kept by the digest of all that decides it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from jssd import phases, places
from jssd.config import Config, MeshConfig, digest, to_dict
from jssd.model.config import ModelConfig
from jssd.plan import architectures, complaints
from jssd.plan.hardware import Hardware

_PACKAGE = pathlib.Path(__file__).parents[1]
_SOURCES = (
    "model", "sampling", "train", "plan", "hosts.py", "sharding.py", "data/examples.py",
    "data/packing.py",
)  # fmt: skip
_BEAT = 10.0  # Seconds between two signs of life of a compile.
# What of the config decides each program, besides the architecture and the mesh. Laws are arguments
# of the sampling programs, so that two presets of one architecture may share them.
_SECTIONS = {"train": ("train",), "prefill": ("engine",), "decode": ("engine",)}
_LAW = ("temperature", "top_k", "top_p", "min_p")


def compile_program(
    folder: pathlib.Path,
    config: Config,
    cfg: ModelConfig,
    hardware: Hardware,
    program: str,
    mesh: MeshConfig | None = None,
    slots: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The result of `plan/worker.py` for one program, read from `folder` if it was compiled before.

    A compile that crashed or ran out of time is not kept: it is tried again next time.

    Args:
      folder: where results are kept.
      config: the run.
      cfg: its architecture.
      hardware: to compile for.
      program: one of `config.PROGRAMS`.
      mesh: instead of the config's.
      slots: of a decode program; 0 is what the config says.
      tell: called before a compile, not where the result is kept.
    """
    mesh = mesh or config.mesh
    request = {
        "config": to_dict(config),
        "hardware": hardware.name,
        "mesh": dataclasses.asdict(mesh),
        "program": program,
        "slots": slots,
    }
    _, dtype = architectures.read(config.model, config.plan.layers)
    kept = folder / f"{_digest(request, cfg, dtype)}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    tell()
    result = _run(request, config)
    if result.get("complaint", {}).get("kind") not in ("crash", "timeout"):
        write_json(kept, result)
    return result


def write_json(path: pathlib.Path, tree: dict[str, Any]) -> None:
    """Writes a JSON file that appears whole. Asks JAX nothing, unlike the stages' own."""
    places.write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def _digest(request: dict[str, Any], cfg: ModelConfig, dtype: str) -> str:
    """Of the program, the compiler and the code between them."""
    tree = request["config"]
    sections = {name: tree[name] for name in _SECTIONS[request["program"]]}
    if request["program"] != "train":
        sampling = tree["sampling"].items()
        sections["sampling"] = {name: value for name, value in sampling if name not in _LAW}
    plan = {name: value for name, value in tree["plan"].items() if name not in ("search", "tries")}
    plan = {name: value for name, value in plan.items() if name not in ("programs", "timeout")}
    source = hashlib.sha256()
    for name in _SOURCES:
        path = _PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            source.update(file.read_bytes())
    return digest(
        {
            "request": {**request, "config": {**sections, "plan": plan}},
            "model": dataclasses.asdict(cfg) | {"dtypes": [dtype, tree["model"]["compute_dtype"]]},
            "versions": [_version(name) for name in ("jax", "libtpu", "jax-cuda13-pjrt")],
            "flags": [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
            "source": source.hexdigest(),
        }
    )


def _run(request: dict[str, Any], config: Config) -> dict[str, Any]:
    environment = dict(os.environ)  # The worker adds `absent.ENVIRONMENT`.
    environment.pop("JAX_OPTIMIZATION_LEVEL", None)
    if config.plan.optimization:
        environment["JAX_OPTIMIZATION_LEVEL"] = config.plan.optimization
    with tempfile.TemporaryDirectory() as scratch:
        asked, told = pathlib.Path(scratch, "request.json"), pathlib.Path(scratch, "result.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "jssd.plan.worker", str(asked), str(told)]
        until, last_words = time.monotonic() + config.plan.timeout, None
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", env=environment,
        ) as worker:  # fmt: skip
            try:
                while last_words is None and (left := until - time.monotonic()) > 0:
                    # A compile has a limit of its own, plan.timeout: it is no hang to the watchdog.
                    phases.beat()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        _, last_words = worker.communicate(timeout=min(left, _BEAT))
            finally:
                worker.kill()
        if last_words is None:
            return {"complaint": complaints.timed_out(config.plan.timeout).as_dict()}
        if not told.exists():
            return {"complaint": complaints.died(worker.returncode, last_words).as_dict()}
        return json.loads(told.read_text(encoding="utf-8"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
