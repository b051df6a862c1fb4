"""Runs side by side: each arm's student against one base, and against the first arm.

    python -m jssd.evals.arms runs/arms/raw runs/arms/null runs/arms/soft

Each folder is a finished run, or one of several seeds, which are pooled. The base's scores are
taken from the first folder that has them. The result is a table in Markdown for each benchmark,
decoding and k, or with --json one JSON list. Differences are paired by problem. Their intervals are
each arm's own; their p-values allow for the number of arms (`selection.adjusted_p`), within one
table: several decodings, benchmarks and k are as many looks, which nothing here corrects for.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jssd import places
from jssd.evals import passk, selection

Key = tuple[str, str]  # Benchmark, decoding.
# Of scores.json: what must be the same in all arms for their numbers to be set side by side.
_SAME = ("told", "protocol", "decode", "n")


@dataclasses.dataclass(frozen=True)
class Scored:
    """One model on one benchmark at one decoding. `rows` are its scores.json, one a seed."""

    where: Path
    rows: list[dict[str, Any]]

    def by_problem(self, k: int) -> np.ndarray:
        """pass@k of each problem, the mean over seeds, in the order of problem ids; float64 [P]."""
        return np.mean([passk.by_problem(row["per_problem"], k) for row in self.rows], axis=0)


def main(argv: Sequence[str]) -> int:
    """Runs the command; a user's mistake is one line and status 2."""
    parser = argparse.ArgumentParser(prog="python -m jssd.evals.arms", description=__doc__)
    parser.add_argument("workdirs", nargs="+", help="local or gs://")
    parser.add_argument("--json", action="store_true", help="one JSON list, not tables")
    parser.add_argument("--resamples", type=int, default=10000, help="of the problems")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    try:
        workdirs = [places.path(name) for name in flags.workdirs]
        found = compare(workdirs, resamples=flags.resamples, seed=flags.seed)
    except (ValueError, OSError) as error:
        print(f"jssd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    tables = "\n\n".join([*map(table, found), _note(found)])
    print(json.dumps(found, indent=1) if flags.json else tables)
    return 0


def compare(workdirs: Sequence[Path], *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """For each benchmark, decoding and k that all arms have: base, arms and their differences.

    Raises:
      FileNotFoundError: a folder without scores of a student, or no scores of a base.
      ValueError: two folders of one name, or arms that were not scored alike.
    """
    arms = {path.name: path for path in workdirs}
    if len(arms) < len(workdirs):
        raise ValueError("two of the folders have the same name. Each names its arm.")
    students = {name: _read(path, "student") for name, path in arms.items()}
    bases = [base for path in workdirs if (base := _read(path, "base"))]
    for name, scored in students.items():
        if not scored:
            raise FileNotFoundError(f"{arms[name]} holds no scores of a student. Run evaluate.")
    if not bases:
        raise FileNotFoundError("no folder holds scores of a base: name the run that scored it.")
    found = []
    for key, base in bases[0].items():
        if not all(key in scored for scored in students.values()):
            continue
        columns = {name: scored[key] for name, scored in students.items()}
        for other in columns.values():
            _check_alike(base, other)
        for k in sorted(set.intersection(*(_ks(one) for one in (base, *columns.values())))):
            found.append(
                {"benchmark": key[0], "decode": key[1], "k": k, "problems": len(base.by_problem(k))}
                | _rows(base, columns, k, {"resamples": resamples, "seed": seed})
            )
    if not found:
        raise ValueError("base and arms have no benchmark at one decoding in common.")
    return found


def table(found: dict[str, Any]) -> str:
    """One entry of `compare` as Markdown, in percent."""
    first = next(iter(found["arms"]))
    lines = [
        f"{found['benchmark']} at {found['decode']}, pass@{found['k']} in percent, "
        f"{found['problems']} problems",
        "",
        f"| arm | seeds | pass@{found['k']} | minus base | minus {first} |",
        "|---|---|---|---|---|",
        f"| base | {found['base']['seeds']} | {_percent(found['base'])} | | |",
    ]
    lines += [
        f"| {name} | {arm['seeds']} | {_percent(arm)} | {_gap(arm['minus_base'])} | "
        f"{_gap(arm['minus_first'])} |"
        for name, arm in found["arms"].items()
    ]
    return "\n".join(lines)


def _note(found: Sequence[dict[str, Any]]) -> str:
    """What the p-values of all tables allow for, and what they do not."""
    note = "p allows for the number of arms in its column"
    if len(found) == 1:
        return f"{note}."
    return (
        f"{note}, not for there being {len(found)} tables: the best of several decodings looks "
        "better than it is. Say before looking which one counts."
    )


def _percent(one: dict[str, Any]) -> str:
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def _gap(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    value, low, high = (f"{100 * one[name]:+.1f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}] p {one['p_value']:.2g}"


def _rows(base: Scored, arms: Mapping[str, Scored], k: int, how: dict[str, int]) -> dict[str, Any]:
    """Base and arms with intervals; differences, with p-values over all arms of a column."""
    base_P = base.by_problem(k)
    arms_AP = [arm.by_problem(k) for arm in arms.values()]
    against_base = _gaps(arms_AP, base_P, how)
    against_first = [None, *_gaps(arms_AP[1:], arms_AP[0], how)]
    estimate = lambda scored, values_P: {
        "seeds": len(scored.rows),
        **dataclasses.asdict(passk.mean_interval(values_P, **how)),
    }
    return {
        "base": estimate(base, base_P),
        "arms": {
            name: estimate(arm, arm_P) | {"minus_base": ours, "minus_first": other}
            for (name, arm), arm_P, ours, other in zip(
                arms.items(), arms_AP, against_base, against_first
            )
        },
    }


def _gaps(arms_AP: list[np.ndarray], base_P: np.ndarray, how: dict[str, int]) -> list[dict]:
    if not arms_AP:
        return []
    p_values = selection.adjusted_p(np.stack(arms_AP) - base_P, **how)
    return [
        dataclasses.asdict(passk.paired_difference(arm_P, base_P, **how)) | {"p_value": float(p)}
        for arm_P, p in zip(arms_AP, p_values)
    ]


def _read(workdir: Path, model: str) -> dict[Key, Scored]:
    """The scores of a run, or of its seeds that have any."""
    seeds = sorted(workdir.glob("seed-*")) or [workdir]
    found: dict[Key, Scored] = {}
    for seed in seeds:
        for path in sorted(seed.glob(f"eval/*/*/{model}/scores.json")):
            key = path.parts[-4], path.parts[-3]
            scored = found.setdefault(key, Scored(path, []))
            scored.rows.append(json.loads(path.read_text(encoding="utf-8")))
            _check_alike(scored, Scored(path, scored.rows[-1:]))
    return found


def _check_alike(first: Scored, other: Scored) -> None:
    """Raises ValueError naming the first thing in which the two were scored differently."""
    a, b = first.rows[0], other.rows[-1]
    for name in _SAME:
        mine, theirs = ({**row, "decode": _law(row["decode"])}[name] for row in (a, b))
        if mine != theirs:
            raise ValueError(
                f"{first.where} and {other.where} were not scored alike: {name} is {mine!r} and "
                f"{theirs!r}. Score both by one config."
            )
    if _ids(a) != _ids(b):
        raise ValueError(
            f"{first.where} and {other.where} were scored on different problems. Score both on the "
            "same ones."
        )


def _law(decode: dict[str, Any]) -> dict[str, Any]:
    """A decoding without who is scored by it."""
    return {name: value for name, value in decode.items() if name != "models"}


def _ids(scores: dict[str, Any]) -> list[str]:
    return sorted(row["id"] for row in scores["per_problem"])


def _ks(scored: Scored) -> set[int]:
    return set.intersection(*({int(k) for k in row["pass_at"]} for row in scored.rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
