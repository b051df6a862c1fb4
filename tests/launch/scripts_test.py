"""Scripts and task files: linted, and run with stand-ins for what a cluster has."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from launch import flags as launch_flags
from launch import manifests

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.rglob("*.sh")), LAUNCH / "slurm" / "jssd.sbatch"]
BIN = pathlib.Path(sys.executable).parent  # Where pip puts shellcheck.
name_of = lambda path: path.name


def stand_in(folder, name, text):
    """A command that does as `text`, a shell script, says."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def run(command, folder, **environment):
    path = f"{folder}:{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path} | environment, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_shellcheck_finds_nothing(path):
    done = subprocess.run([BIN / "shellcheck", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert path.suffix == ".sbatch" or os.access(path, os.X_OK)


SLURM = {
    "SLURM_JOB_ID": "71", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_PROCID": "1",
}  # fmt: skip


def sbatch(folder, code, *flags, **environment):
    """The script under a stand-in of SLURM: (its result, what srun's task got, requeued jobs)."""
    (folder / "argv").unlink(missing_ok=True)
    (folder / "requeued").unlink(missing_ok=True)
    stand_in(folder, "srun", 'shift; "$@"')
    stand_in(
        folder, "scontrol",
        f'if [[ $1 == show ]]; then printf "n1\\nn2\\n"; else echo "$2" >> {folder}/requeued; fi',
    )  # fmt: skip
    # The script asks python for flags, then for the run.
    stand_in(
        folder, "python",
        f'if [[ $2 == launch.flags ]]; then exec {sys.executable} "$@"; fi\n'
        f'printf "%s\\n" "$@" "$XLA_FLAGS" > {folder}/argv; exit {code}',
    )  # fmt: skip
    script = str(LAUNCH / "slurm" / "jssd.sbatch")
    done = run(["bash", script, *flags], folder, **(SLURM | environment))
    argv = (folder / "argv").read_text().splitlines() if (folder / "argv").exists() else []
    back = (folder / "requeued").read_text().split() if (folder / "requeued").exists() else []
    return done, argv, back


@pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 134, 140, 143])
def test_sbatch_goes_back_to_the_queue_when_it_should(code, tmp_path):
    done, argv, back = sbatch(tmp_path, code, "--config=a b.py")
    assert done.returncode == code, done.stderr
    assert argv[:3] == ["-m", "jssd.main", "--config=a b.py"]
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in argv[-1]
    assert back == (["71"] if code == 42 or code >= 128 else [])


def test_sbatch_gives_up_after_so_many_restarts(tmp_path):
    for count, back in (("49", ["71"]), ("50", [])):
        assert sbatch(tmp_path, 140, SLURM_RESTART_COUNT=count)[2] == back


def test_sbatch_tells_the_processes_of_several_nodes_who_is_who(tmp_path):
    grace = "--config.survival.grace=99"
    for tasks, count in ((None, 2), ("4", 8)):
        own = {"SLURM_JOB_NUM_NODES": "2"} | ({"SLURM_NTASKS_PER_NODE": tasks} if tasks else {})
        _, argv, _ = sbatch(tmp_path, 0, grace, **own)
        assert argv[2:-1] == [
            grace, "--coordinator=n1:10071", f"--num_processes={count}", "--process_id=1",
        ]  # fmt: skip


def test_an_array_is_shards(tmp_path):
    array = {
        "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7",
        "SLURM_ARRAY_TASK_COUNT": "8",
    }  # fmt: skip
    _, argv, _ = sbatch(tmp_path, 0, "--stages=sample", **array)
    grace = "--config.survival.grace=150"  # Ours, where none is given.
    assert argv[2:-1] == ["--stages=sample", grace, "--config.shard=3/8"]
    done, argv, _ = sbatch(tmp_path, 0, **array | {"SLURM_ARRAY_TASK_MIN": "1"})
    assert done.returncode == 2 and "0 to N-1" in done.stderr and not argv
    done, argv, _ = sbatch(tmp_path, 0, **array | {"SLURM_JOB_NUM_NODES": "2"})
    assert done.returncode == 2 and "--nodes=1" in done.stderr and not argv


def test_the_shell_before_python_on_a4_leaves_it_the_signals(tmp_path):
    """set_nccl_env.sh is read, flags with spaces survive, and SIGTERM reaches the program."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "set_nccl_env.sh").write_text("export NCCL_SET=yes\n")
    program = (
        "import os,signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print(os.environ['NCCL_SET'], sys.argv[1:], flush=True)\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "program.py").write_text(program)
    stand_in(tmp_path, "python", f'shift 2; exec {sys.executable} {tmp_path}/program.py "$@"')
    job = next(job for job in manifests_of_a4())
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    command = [
        part.replace("/usr/local/gib", str(tmp_path)) for part in spec["containers"][0]["command"]
    ]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [*command, "--config=a b"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "yes ['--config=a b']\n"
        process.send_signal(signal.SIGTERM)  # To what Kubernetes sees as process 1.
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert process.returncode == 42


def manifests_of_a4():
    from launch import targets

    return [manifests.render(job) for job in targets.COMMITTED if job.name == "jssd-b200-sft"]


def test_a_tpu_vm_run_starts_again_as_the_contract_says(tmp_path):
    """It is asked for its type, whose flags are set. TPU7x stands for a type that has some."""
    stand_in(tmp_path, "git", "exit 0")
    for codes, ended, starts in (("42 140 0", 0, 3), ("2", 2, 1), ("140 140 140 140", 140, 3)):
        (tmp_path / "codes").write_text("\n".join(codes.split()) + "\n")
        (tmp_path / "calls").write_text("")
        stand_in(
            tmp_path, "gcloud",
            f'echo "$*" | tr "\\n" " " >> {tmp_path}/calls; echo >> {tmp_path}/calls\n'
            'if [[ "$*" == *" describe "* ]]; then echo tpu7x-128; exit; fi\n'
            f'if [[ "$*" == *jssd.main* ]]; then code=$(head -n 1 {tmp_path}/codes); '
            f"sed -i 1d {tmp_path}/codes; exit $code; fi",
        )  # fmt: skip
        script = str(LAUNCH / "tpu_vm" / "run.sh")
        own = {"PAUSE": "0", "RESTARTS": "2", "PYTHON": sys.executable}
        done = run([script, "vm", "zone", "--config=a b.py"], tmp_path, **own)
        assert done.returncode == ended, done.stderr
        calls = (tmp_path / "calls").read_text().splitlines()
        assert len([call for call in calls if "jssd.main" in call]) == starts
        assert "describe vm --zone=zone" in calls[0]
        assert all("--worker=all" in call for call in calls[1:])
        assert "export LIBTPU_INIT_ARGS='--xla_tpu_enable_sparse_core" in calls[-1]
        assert r"--distributed --config=a\ b.py" in calls[-1]


def xpk(folder, kind, slices, *flags, **environment):
    """What launch/xpk.sh does for a kind of TPU."""
    where = ["mine", "cluster", "us-east5-b", "project", kind, slices, "image:1"]
    command = [str(LAUNCH / "xpk.sh"), *where, *flags]
    return run(command, folder, PYTHON=sys.executable, **environment)


def test_xpk_gets_one_command(tmp_path):
    stand_in(tmp_path, "xpk", f'printf "%s\\n" "$@" > {tmp_path}/argv')
    done = xpk(tmp_path, "v6e-64", "1", "--config=a b.py", "--stages=sft")
    assert done.returncode == 0, done.stderr
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:2] == ["workload", "create"] and "--max-restarts=50" in argv
    command = r"--command=exec python -m jssd.main --distributed --config=a\ b.py --stages=sft"
    assert f"{command} --config.survival.grace=100" in argv and "--dry-run" not in argv
    assert "--termination-grace-period-seconds=120" in argv
    assert run([str(LAUNCH / "xpk.sh"), "mine"], tmp_path).returncode == 2
    refused = xpk(tmp_path, "v4-8", "1", "--config=x")
    assert refused.returncode == 2 and "v4-8 is none of the chips" in refused.stderr


@pytest.mark.parametrize(
    ("kind", "slices", "wanted"),
    [
        ("v6e-64", "2", ["megascale_error_reporter_abort_on_hang=true"]),
        ("tpu7x-4x4x4", "1", ["offload_all_reduce=false", "offload_reduce_scatter=false"]),
    ],
)
def test_xpk_gets_the_flags_of_the_chip(kind, slices, wanted, tmp_path):
    """The command is one that bash runs, with the variable set; its program is replaced here."""
    stand_in(tmp_path, "xpk", f'printf "%s\\n" "$@" > {tmp_path}/argv')
    assert xpk(tmp_path, kind, slices, "--config.survival.grace=9").returncode == 0
    argv = (tmp_path / "argv").read_text().splitlines()
    [command] = [word.removeprefix("--command=") for word in argv if "--command=" in word]
    assert command.count("survival.grace") == 1
    stand_in(tmp_path, "python", 'echo "$LIBTPU_INIT_ARGS"')
    printed = run(["bash", "-c", command], tmp_path).stdout
    default = launch_flags.environment(kind.split("-")[0], int(slices))["LIBTPU_INIT_ARGS"]
    assert printed.strip() == default and all(one in printed for one in wanted)


@pytest.mark.optin
@pytest.mark.skipif(
    not os.environ.get("JSSD_XPK"), reason="JSSD_XPK names no program xpk: pip install xpk==1.16.0"
)
@pytest.mark.parametrize(("kind", "slices"), [("v6e-64", "2"), ("tpu7x-4x4x4", "1")])
def test_xpk_itself_makes_a_manifest_of_it(kind, slices, tmp_path):
    (tmp_path / "xpk").symlink_to(os.environ["JSSD_XPK"])
    done = xpk(tmp_path, kind, slices, "--config=a b.py", "--stages=sft", XPK_DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    tree = yaml.safe_load(done.stdout)
    [job] = tree["spec"]["replicatedJobs"]
    inner = job["template"]["spec"]
    pod = inner["template"]["spec"]
    assert (tree["kind"], job["replicas"], inner["parallelism"]) == ("JobSet", int(slices), 16)
    assert tree["spec"]["failurePolicy"]["maxRestarts"] == 50
    assert pod["terminationGracePeriodSeconds"] == 120
    [rule] = inner["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert {42, 134, 140, 143} < set(rule["onExitCodes"]["values"]) and not {1, 2} & set(
        rule["onExitCodes"]["values"]
    )
    script = pod["containers"][0]["command"][-1]
    default = launch_flags.environment(kind.split("-")[0], int(slices))["LIBTPU_INIT_ARGS"]
    assert default in script and r"exec python -m jssd.main --distributed --config=a\ b" in script


def test_tpu_vms_are_asked_for_by_their_runtime(tmp_path):
    stand_in(tmp_path, "gcloud", f'echo "$*" >> {tmp_path}/calls; echo ACTIVE')
    script = str(LAUNCH / "tpu_vm" / "create.sh")
    for kind, runtime in (("v6e-64", "tpuv6e"), ("v5p-8", "tpuv5"), ("v5litepod-16", "tpuv5-lite")):
        (tmp_path / "calls").unlink(missing_ok=True)
        assert run([script, "vm", "zone", kind], tmp_path).returncode == 0
        create, _ = (tmp_path / "calls").read_text().splitlines()
        assert f"--runtime-version=v2-alpha-{runtime} --spot" in create
    refused = run([script, "vm", "zone", "tpu7x-128"], tmp_path)
    assert refused.returncode == 2 and "on GKE only" in refused.stderr


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="there is no gcloud")
@pytest.mark.parametrize("path", sorted((LAUNCH / "tpu_vm").glob("*.sh")), ids=name_of)
def test_gcloud_knows_the_commands(path):
    text = re.sub(r"\\\n\s*", "", path.read_text())
    found = re.findall(r"^\s*(?:state=\$\()?(gcloud [^\n]*)", text, re.MULTILINE)
    assert found
    for command in found:
        if " scp " in command:  # The linter gives up on its HOST:PATH, in SDK 528.
            continue
        command = re.sub(r'\s--command="$', " --command=x", command).rstrip(")")
        command = command.replace('"${spot[@]}"', "--spot")
        command = re.sub(r'"?\$\{?\w+\}?"?', "x", command)
        lint = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
        done = subprocess.run(lint, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        [result] = json.loads(done.stdout)
        assert result["success"], (command, result["error_message"])


def test_the_sky_task_holds_what_it_may():
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert set(task) <= {"name", "resources", "num_nodes", "workdir", "envs", "setup", "run"}
    codes = task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert 42 in codes and 140 in codes and not {0, 1, 2} & set(codes)
    for name in re.findall(r"\$\{?([A-Z_]+)", task["setup"] + task["run"]):
        assert name in task["envs"], name
    for section in ("setup", "run"):
        done = subprocess.run(["bash", "-n"], input=task[section], text=True)
        assert done.returncode == 0


def test_the_sky_task_sets_the_flags_of_its_chip(tmp_path):
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    chip = launch_flags.chip_of(task["resources"]["accelerators"])
    assert chip == task["envs"]["CHIP"]
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stand_in(
        tmp_path / ".venv" / "bin", "python",
        f'if [[ $2 == launch.flags ]]; then cd {ROOT}; exec {sys.executable} "$@"; fi\n'
        'printf "%s\\n" "$LIBTPU_INIT_ARGS" "$@"',
    )  # fmt: skip
    values = {name: str(value) for name, value in task["envs"].items()}
    for chip, flag in (("v6e", ""), ("tpu7x", "--xla_tpu_enable_sparse_core_collective")):
        done = subprocess.run(
            ["bash", "-c", task["run"]], cwd=tmp_path, env=os.environ | values | {"CHIP": chip},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        first, *argv = done.stdout.splitlines()
        assert first.startswith(flag) and bool(first) == bool(flag)
        assert argv[:3] == ["-m", "jssd.main", "--distributed"]
        assert "--workdir=/runs/qwen3_4b_instruct" in argv and argv[-1] == "--config.mesh.context=2"


SKY = """
import sys, yaml, sky
tree = yaml.safe_load(open(sys.argv[1]))
given = [("RUNS_NFS", "10.0.0.2:/runs")]
assert sky.Task.from_yaml_config(tree, given).num_nodes == 1
try:
    sky.Task.from_yaml_config(tree | {"num_node": 1}, given)
except ValueError as error:
    assert "num_node" in str(error)
else:
    raise AssertionError("a wrong name was taken")
print("taken", sky.__version__)
"""


@pytest.mark.optin
@pytest.mark.skipif(
    not os.environ.get("JSSD_SKY_PYTHON"),
    reason="JSSD_SKY_PYTHON names no Python that has skypilot: pip install skypilot==0.14.1",
)
def test_skypilot_itself_takes_its_task(tmp_path):
    """In a Python of its own: its needs and ours do not go together in one."""
    done = subprocess.run(
        [os.environ["JSSD_SKY_PYTHON"], "-c", SKY, str(LAUNCH / "sky.yaml")],
        env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "taken" in done.stdout
