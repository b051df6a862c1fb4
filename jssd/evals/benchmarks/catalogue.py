"""A benchmark by its name in a config: its tasks, and the rules they are graded by."""

import dataclasses

from jssd import places
from jssd.config import LIVECODEBENCH, EvalConfig
from jssd.evals import benchmarks
from jssd.evals.benchmarks import Task, files, livecodebench
from jssd.evals.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is asked, how it is graded, and one line about it for the log and the scores."""

    name: str
    tasks: list[Task]
    protocol: Protocol
    told: str


def check(config: EvalConfig) -> None:
    """Raises FileNotFoundError or ValueError now when a benchmark's files are not there.

    `config.data` that no benchmark is read from is a ValueError too.
    """
    if config.data and set(config.benchmarks) <= {*benchmarks.SPLITS, *LIVECODEBENCH}:
        raise ValueError(
            f"evaluate.data={config.data!r} is read by no benchmark of evaluate.benchmarks="
            f"{tuple(config.benchmarks)!r}: they come with jssd or from "
            "evaluate.livecodebench.path. Name one of its files, or leave it ''."
        )
    for name in config.benchmarks:
        if name in LIVECODEBENCH:
            livecodebench.locate(config.livecodebench.path)
        elif name in benchmarks.SPLITS:
            benchmarks.load(name, benchmarks.SPLITS[name][0])
        else:
            files.find(config.data, name)


def private(config: EvalConfig) -> list[str]:
    """Files and folders of this machine with answers in them, which no graded program may read."""
    paths = [config.data, config.livecodebench.path]
    if config.livecodebench.path.startswith("hf:"):
        from huggingface_hub import constants  # Not before somebody asks for it: it is slow.

        paths[1] = constants.HF_HUB_CACHE
    copies = str(places.cache_root())  # Of what lies in a bucket.
    return [copies if places.is_remote(places.path(path)) else path for path in paths if path]


def find(name: str, config: EvalConfig) -> Benchmark:
    """The benchmark `name`, cut to `config.limit` problems.

    Raises FileNotFoundError when its data are missing and ValueError when they are broken.
    """
    protocol = Protocol(extraction=config.extraction, seconds=config.timeout)
    if name in LIVECODEBENCH:
        section = config.livecodebench
        window = name.removeprefix("livecodebench").removeprefix("_") or section.window
        tasks, told = livecodebench.load(
            section.path, window, section.difficulty, tuple(section.strict)
        )
        protocol = livecodebench.protocol(tuple(section.strict))
    elif name in benchmarks.SPLITS:
        tasks = benchmarks.load(name, benchmarks.SPLITS[name][0])
        told = f"{len(tasks)} problems"
    else:
        path = files.find(config.data, name)
        tasks = files.load(path, name)
        told = f"{len(tasks)} problems of {path.name}"
    if config.limit and config.limit < len(tasks):
        tasks, told = tasks[: config.limit], f"{told}, the first {config.limit} of them asked"
    return Benchmark(name, tasks, protocol, f"{name}: {told}")
