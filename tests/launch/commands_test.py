"""Commands for clusters, of the texts and of the scripts' notes: parsed, and their files found."""

import re
import shlex

import pytest
import yaml

from launch import flags, render
from tests.configs_test import ROOT, TEXTS, _check_run

NOTES = [
    *(ROOT / name for name in TEXTS),
    *sorted((ROOT / "launch").rglob("*.sh")),
    *(
        ROOT / "launch" / name
        for name in ("slurm/jssd.sbatch", "sky.yaml", "render.py", "flags.py")
    ),
]
PROGRAMS = r"python -m launch\.\w+|kubectl apply|sbatch|sky jobs|launch/\S+\.sh|JSSD_\w+="


def _commands():
    """(file, command) of lines that are commands, and of `code` in running text."""
    for path in NOTES:
        text = re.sub(r"\s*\\+\n[#\s]*", " ", path.read_text())
        for line in text.splitlines():
            line = re.sub(r"^[#\s]*", "", line)
            # After two spaces comes what it does.
            inside = re.findall(rf"`(?:eval \"\$\()?((?:{PROGRAMS})[^`|)]*)", line)
            whole = [part for part in line.split(" | ") if re.match(rf"({PROGRAMS})", part)]
            for command in inside or whole:
                yield str(path.relative_to(ROOT)), re.split(r"  +|\s#\s", command)[0].strip()


COMMANDS = sorted(set(_commands()))


def test_there_are_commands_of_every_kind():
    starts = {command.split()[0].split("=")[0] for _, command in COMMANDS}
    assert {"python", "kubectl", "sbatch", "sky", "launch/xpk.sh", "JSSD_SLURM"} <= starts


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_command_is_one_that_would_run(where, command):
    words = shlex.split(command)
    if words[:2] == ["python", "-m"]:
        _check_module(where, words[2], words[3:])
    elif words[0] in ("kubectl", "sbatch", "sky"):
        {"kubectl": _check_kubectl, "sbatch": _check_sbatch, "sky": _check_sky}[words[0]](words)
    elif words[0].startswith("launch/"):
        assert (ROOT / words[0]).exists()
        assert where == words[0] or len(words) > 1
    elif words[0].startswith("JSSD_"):  # Of an opt-in test: a test must read it.
        tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*_test.py"))
        for name in re.findall(r"(JSSD_\w+)=", command):
            assert f'"{name}"' in tests, name
    else:
        raise AssertionError(f"{where}: nothing here can check {command!r}")


def _check_module(where, module, given):
    if module == "launch.flags":
        assert flags.main(given) == 0
        return
    assert module == "launch.render", where
    arguments = render.parser().parse_args(given)
    if arguments.like:
        job = render.changed(arguments)
        _check_run([f"--config={job.config}", f"--stages={','.join(job.stages)}", *job.flags])


def _check_kubectl(words):
    files = [words[i + 1] for i, word in enumerate(words) if word == "-f"]
    assert files
    for name in files:
        assert name == "-" or (ROOT / name).exists(), name


def _check_sbatch(words):
    [at] = [i for i, word in enumerate(words) if word.endswith(".sbatch")]
    assert (ROOT / words[at]).exists()
    assert all(re.match(r"--[a-z-]+=", word) for word in words[1:at])
    told = [word for word in words[at + 1 :] if "..." not in word]
    _check_run(["--config=configs/demo.py", *told])


def _check_sky(words):
    [name] = [word for word in words if word.endswith(".yaml")]
    task = yaml.safe_load((ROOT / name).read_text())
    given = [words[i + 1].split("=")[0] for i, word in enumerate(words) if word == "--env"]
    assert given and set(given) <= set(task["envs"])
    needed = {name for name, value in task["envs"].items() if value is None}
    assert needed <= set(given)
