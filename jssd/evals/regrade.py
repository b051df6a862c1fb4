"""Grades programs that others drew, or their grader has graded, and says where verdicts differ.

    python -m jssd.evals.regrade --benchmark=livecodebench_v6 --livecodebench=FOLDER FILE

FILE is evalplus' samples.jsonl or LiveCodeBench's custom_outputs.json or ..._eval_all.json. The
result is one JSON object on standard output.
"""

import argparse
import collections
import json
import sys
from collections.abc import Sequence

import numpy as np

from jssd import places
from jssd.config import EvalConfig, LiveCodeBenchConfig
from jssd.evals import exchange, grading, passk, sandbox, ways
from jssd.evals.benchmarks import catalogue


def main(argv: Sequence[str]) -> int:
    """Runs the command; a user's mistake is one line and status 2."""
    flags = _parser().parse_args(argv)
    config = EvalConfig(
        data=flags.data,
        timeout=flags.timeout,
        livecodebench=LiveCodeBenchConfig(
            path=flags.livecodebench,
            window=flags.window,
            strict=tuple(filter(None, flags.strict.split(","))),
        ),
    )
    try:
        bench = catalogue.find(flags.benchmark, config)
        given = exchange.read(places.path(flags.file), bench.tasks)
        python = ways.this_interpreter(flags.packages, catalogue.private(config))
        box = sandbox.open_sandbox("auto", python)
        grades = regrade(bench, given, box, flags.workers, flags.memory_mb)
    except (ValueError, OSError) as error:
        print(f"jssd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(json.dumps(summary(bench, given, grades), indent=1))
    return 0


def regrade(
    bench: catalogue.Benchmark,
    given: Sequence[exchange.Graded],
    box: sandbox.Sandbox,
    workers: int,
    memory_mb: int,
) -> list[grading.Grade]:
    """Our grade of each program. An empty one stands for an answer without a program."""
    by_id = {task.id: task for task in bench.tasks}
    return grading.grade_programs(
        [by_id[graded.task_id] for graded in given],
        [graded.program if graded.program.strip() else None for graded in given],
        protocol=bench.protocol,
        sandbox=box,
        workers=workers,
        memory_mb=memory_mb,
    )


def summary(
    bench: catalogue.Benchmark,
    given: Sequence[exchange.Graded],
    grades: Sequence[grading.Grade],
) -> dict:
    """pass@1 with its interval, verdicts, and each program that the file's grader judged
    otherwise. Problems without a program are not counted."""
    tally: dict[str, list[int]] = {}
    numbers: collections.Counter[str] = collections.Counter()
    differ = []
    for graded, grade in zip(given, grades, strict=True):
        count = tally.setdefault(graded.task_id, [0, 0])
        count[0] += 1
        count[1] += grade.passed
        if graded.passed is not None and graded.passed != grade.passed:
            differ.append(
                {
                    "task_id": graded.task_id,
                    "sample": numbers[graded.task_id],
                    "theirs": graded.passed,
                    "ours": grade.verdict,
                    "detail": grade.detail,
                }
            )
        numbers[graded.task_id] += 1
    n, c = np.array(list(tally.values())).T
    interval = passk.mean_interval(passk.pass_at_k(n, c, 1), resamples=10000, seed=0)
    return {
        "benchmark": bench.told,
        "problems": len(tally),
        "programs": len(given),
        "pass@1": {"value": interval.value, "low": interval.low, "high": interval.high},
        "verdicts": dict(collections.Counter(grade.verdict for grade in grades)),
        "graded_by_both": sum(graded.passed is not None for graded in given),
        "differ": differ,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jssd.evals.regrade", description=__doc__)
    parser.add_argument("file", help="local or gs://")
    parser.add_argument("--benchmark", required=True, help="as in evaluate.benchmarks")
    parser.add_argument("--data", default="", help="as evaluate.data")
    parser.add_argument("--livecodebench", default="", help="as evaluate.livecodebench.path")
    parser.add_argument("--window", default="", help="as evaluate.livecodebench.window")
    parser.add_argument("--strict", default="", help="rules, comma between; or all")
    parser.add_argument("--packages", default="", help="as evaluate.packages")
    parser.add_argument("--timeout", type=float, default=10.0, help="as evaluate.timeout")
    parser.add_argument("--memory_mb", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
