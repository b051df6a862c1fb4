"""The command that says how a run stands, from its work directory alone; nothing heavy is loaded.

python -m jssd.status runs/demo gs://bucket/runs/4b
"""

import json
import pathlib
import sys
import time

from jssd import goodput, heartbeats, places, survival
from jssd.config import PIPELINE

_DONE = {
    "toy": "toy/toy.json",
    "plan": "plan/plan.json",
    "sample": "samples/manifest.json",
    "export": "export/config.json",
    "evaluate": "eval/comparisons.json",
    "mechanism": "mechanism/summary.json",
    "sweep": "sweep/summary.json",
    "report": "report/index.html",
}


def main(argv: list[str]) -> int:
    """Prints the state of each work directory; 2 where one is none."""
    if not argv or any(name.startswith("-") for name in argv):
        print("usage: python -m jssd.status WORKDIR ...", file=sys.stderr)
        return survival.MISTAKE
    for name in argv:
        try:
            workdir = places.path(name)
            places.check_reach(workdir)
            lines = describe(workdir)
        except (OSError, ValueError) as error:
            print(f"jssd: error: {error}", file=sys.stderr)
            return survival.MISTAKE
        print("\n".join(lines))
    return 0


def describe(workdir: pathlib.Path) -> list[str]:
    """Lines on who is at work, each run's stages, what comes next and where time went.

    Raises:
      FileNotFoundError: no run was begun there.
      ValueError: a broken config.json.
    """
    runs = sorted(path.parent for path in workdir.glob("config.json")) or sorted(
        (path.parent for path in workdir.glob("**/config.json") if _is_run(path, workdir)),
        key=lambda path: [_number(part) for part in path.relative_to(workdir).parts],
    )
    if not runs:
        raise FileNotFoundError(f"{workdir} holds no run: there is no config.json.")
    lines = [f"{workdir}: {running(workdir)}"]
    following = ""
    for run in runs:
        config = _read(run / "config.json")
        states = stages(run, config)
        where = "" if run == workdir else f"{run.relative_to(workdir)}/"
        lines += [f"  {where}{name}: {state}" for name, state in states.items()]
        for name, state in states.items():
            if not following and not state.startswith("done"):
                following = f"{where}{name}"
    lines.append(f"next: {following or 'nothing, all is done'}")
    spent = goodput.read(runs)
    if spent:
        rows = ", ".join(f"{told} {seconds:.0f} s" for told, seconds, _ in spent.rows())
        lines.append(f"{spent.starts} starts, {spent.share:.0%} of the time was progress: {rows}")
    return lines


def running(workdir: pathlib.Path) -> str:
    """Who is at work there, or what is left of who was."""
    found = heartbeats.read(workdir)
    if not found:
        return "nobody is at work"
    now = time.time()
    fresh = [
        entry
        for entry in found
        if entry["ended"] is None and now - entry["time"] < heartbeats.STALE_SECONDS
    ]
    if fresh:
        told = "; ".join(
            f"process {entry['rank']}/{entry['count']} (pid {entry['pid']} on {entry['host']}) in "
            f"{entry['phase']}, step {entry['step']}, last progress "
            f"{entry['seconds_since_progress'] + now - entry['time']:.0f} s ago"
            for entry in fresh
        )
        silent = sorted(set(range(fresh[0]["count"])) - {entry["rank"] for entry in fresh})
        lost = f"; stale: process {', '.join(map(str, silent))}" if silent else ""
        return f"running: {told}{lost}"
    last = max(found, key=lambda entry: entry["time"])
    ended = "killed or frozen" if last["ended"] is None else f"ended with exit code {last['ended']}"
    return f"stale: {ended} {now - last['time']:.0f} s ago in {last['phase']}, step {last['step']}"


def stages(run: pathlib.Path, config: dict) -> dict[str, str]:
    """For each stage "done", "not begun", or how far it is; a report older than its run is
    "stale"."""
    wanted = [*(config.get("stages") or PIPELINE)]
    wanted += [name for name in _DONE if name not in wanted and (run / _DONE[name]).exists()]
    return {name: _state(run, name, config) for name in wanted if name != "report" or _own(run)}


def _own(run: pathlib.Path) -> bool:
    """Whether the report of a run stands in its own folder, not in that of all its seeds."""
    return not run.name.startswith("seed-")


def _state(run: pathlib.Path, stage: str, config: dict) -> str:
    if stage == "sft":
        step, goal = _newest_step(run / "checkpoints"), config["train"]["num_steps"]
        return "done" if step >= goal else f"step {step} of {goal} saved" if step else "not begun"
    path = run / _DONE[stage]
    if not path.exists() or (stage == "export" and not places.is_whole(path.parent)):
        return _under_way(run, stage)
    if stage == "report":
        inputs = [run / _DONE[name] for name in ("sample", "evaluate", "mechanism")]
        newest = max((p.stat().st_mtime for p in inputs if p.exists()), default=0.0)
        if newest > path.stat().st_mtime:
            return "stale: older than what it reports"
    return "done"


def _under_way(run: pathlib.Path, stage: str) -> str:
    if stage == "sample":
        parts = [*run.glob("samples/part-*.jsonl"), *run.glob("samples/part-*.jsonl.partial")]
        if parts:
            return f"{sum(p.read_bytes().count(10) for p in parts)} completions drawn"
    if stage in ("evaluate", "sweep"):
        folder = run / ("eval" if stage == "evaluate" else "sweep/cells")
        drawn = {p.parent for p in folder.glob("**/part-*.jsonl*")}
        graded = {p.parent for p in folder.glob("**/scores.json")}
        if drawn or graded:
            return f"{len(graded)} cells graded, {len(drawn - graded)} drawn or begun"
    if stage == "mechanism" and (run / "mechanism/tokens.jsonl.partial").exists():
        return "begun"
    return "not begun"


def _newest_step(folder: pathlib.Path) -> int:
    """The newest whole checkpoint: one under way has another name, or in a bucket no mark."""
    steps = [path for path in folder.glob("*") if path.name.isdigit()]
    if places.is_remote(folder):  # Orbax puts the mark last.
        steps = [path for path in steps if (path / "commit_success.txt").exists()]
    return max((int(path.name) for path in steps), default=0)


def _is_run(path: pathlib.Path, workdir: pathlib.Path) -> bool:
    parts = path.relative_to(workdir).parts[:-1]
    return all(part.startswith(("seed-", "round-")) for part in parts)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
