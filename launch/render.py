"""Writes manifests: those of `launch/gke/`, or one of your own to the standard output.

    python -m launch.render                 rewrites launch/gke/, the tables in launch/README.md and
                                            docs/hardware.md, and the plans in the presets' notes
    python -m launch.render --like=jssd-v6e-sft --image=IMAGE --name=mine --stages=evaluate \\
        --config=configs/llama31_8b_instruct.py --workdir=/runs/mine | kubectl apply -f -

All but --like changes one thing of the job named there; --flags holds those of jssd.main.
"""

import argparse
import dataclasses
import pathlib
import shlex
import sys

import yaml

from launch import cluster, manifests, plans, targets
from launch.flags import SETS

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "launch" / "gke"
README = ROOT / "launch" / "README.md"
HARDWARE = ROOT / "docs" / "hardware.md"
HEAD = "# Made by `python -m launch.render`: change launch/*.py, not this file.\n"


def text(objects: list[dict]) -> str:
    """Objects as YAML."""
    return yaml.dump_all(objects, Dumper=_NoAliases, sort_keys=False, width=1000)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data) -> bool:
        return True


def files() -> dict[pathlib.Path, str]:
    """Every generated file with its text."""
    found = {f"{job.name.removeprefix('jssd-')}.yaml": [manifests.render(job)] for job in _jobs()}
    found |= {
        "storage.yaml": cluster.storage(),
        "account.yaml": cluster.account(),
        "kueue.yaml": cluster.queues(),
    }
    return {FOLDER / name: HEAD + text(objects) for name, objects in found.items()}


def _jobs() -> tuple[targets.Job, ...]:
    return targets.COMMITTED


def hardware_table() -> str:
    """Hardware, its file, preset, and the smallest slice that plan compiled and found to fit."""
    lines = [
        "| chip | file of stage sft | preset | smallest slice compiled | mesh | GiB a device |",
        "|---|---|---|---|---|---|",
    ]
    for chip in targets.POOLS:
        for preset in plans.presets():
            if plan := plans.smallest(preset, chip):
                cells = (
                    chip, f"`gke/{chip}-sft.yaml`", f"`{preset}`", plan["hardware"],
                    plans.mesh(plan), plans.needs(plan),
                )  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def flags_table() -> str:
    """The flag sets."""
    lines = [
        "| set | chips | default | for | source | date | risk |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in SETS:
        default = "yes" if one.default else "no"
        if one.several_slices:
            default = "of several slices"
        lines.append(
            f"| `{one.name}` | {', '.join(one.chips)} | {default} | {one.purpose} | {one.source} "
            f"| {one.date} | {one.risk} |"
        )
    return "\n".join(lines)


def texts() -> dict[pathlib.Path, str]:
    """Every text that has something generated in it, made anew."""
    readme = README.read_text(encoding="utf-8")
    for name, table in (("hardware", hardware_table()), ("flags", flags_table())):
        readme = _between(readme, name, table)
    made = {
        README: readme,
        HARDWARE: _between(HARDWARE.read_text("utf-8"), "plans", plans.overview()),
    }
    for preset in plans.presets():
        path = ROOT / "configs" / f"{preset}.py"
        made[path] = plans.documented(path.read_text(encoding="utf-8"), preset)
    return made


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: made by launch.render -->\n", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return head + begin + "\n" + table + "\n\n" + end + rest.split(end)[1]


def changed(arguments: argparse.Namespace) -> targets.Job:
    """The job `--like`, with what else was given.

    Raises:
      ValueError: no such job, or one that can't be.
    """
    known = {job.name: job for job in _jobs()}
    if arguments.like not in known:
        raise ValueError(f"--like={arguments.like!r} must be one of {', '.join(known)}.")
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name != "like" and value is not None
    }
    if "stages" in given:
        given["stages"] = tuple(filter(None, given["stages"].split(",")))
    if "flags" in given:
        given["flags"] = tuple(shlex.split(given["flags"]))
    return dataclasses.replace(known[arguments.like], **given)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    made.add_argument("--like", help="a committed job: " + ", ".join(j.name for j in _jobs()))
    for name in ("name", "hardware", "config", "workdir", "stages", "flags", "image", "queue"):
        made.add_argument(f"--{name}")
    made.add_argument("--reservation")
    made.add_argument("--shards", type=int)
    made.add_argument("--spot", action=argparse.BooleanOptionalAction)
    return made


def main(argv: list[str]) -> int:
    """Writes the files, or prints one job."""
    arguments = parser().parse_args(argv)
    try:
        if any(value is not None for value in vars(arguments).values()):
            sys.stdout.write(text([manifests.render(changed(arguments))]))
            return 0
    except ValueError as error:
        print(f"render: error: {error}", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    for path, content in {**files(), **texts()}.items():
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
