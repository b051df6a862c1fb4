"""Manifests are what the renderer makes, valid, and start what they say."""

import dataclasses
import json
import math
import pathlib
import re

import pytest
import yaml

from jssd.config import SurvivalConfig
from jssd.plan import architectures, hardware
from jssd.rules import validate
from launch import manifests, plans, render, targets
from tests.configs_test import load

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "launch" / "gke").glob("*.yaml"))
GANGS = [job for job in targets.COMMITTED if job.kind == "gang"]
INDEXED = [job for job in targets.COMMITTED if job.kind == "indexed"]
name_of = lambda job: job.name


def template(job):
    """The pod's template."""
    spec = manifests.render(job)["spec"]
    if job.kind == "gang":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return spec["template"]["spec"]


def test_committed_files_are_rendered_ones():
    files = render.files()
    assert {path.name for path in FILES} == {path.name for path in files}
    for path, text in files.items():
        assert path.read_text() == text, f"{path.name}: run python -m launch.render"
    texts = render.texts()
    assert {path.stem for path in texts} >= {"README", "hardware", "qwen3_30b_a3b_instruct"}
    for path, text in texts.items():
        assert path.read_text("utf-8") == text, f"{path}: run python -m launch.render"


@pytest.mark.parametrize("job", GANGS, ids=name_of)
def test_what_the_webhook_of_jobset_refuses(job):
    tree = manifests.render(job)
    spec, name = tree["spec"], tree["metadata"]["name"]
    rules = [rule["name"] for rule in spec["failurePolicy"]["rules"]]
    assert len(set(rules)) == len(rules)
    parts = [one["name"] for one in spec["replicatedJobs"]]
    assert len(set(parts)) == len(parts)
    for one in (name, *rules, *parts):  # A label of RFC 1035.
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", one) and len(one) <= 63, one
    for rule in spec["failurePolicy"]["rules"]:
        for pattern in rule.get("onJobFailureMessagePatterns", ()):
            re.compile(pattern)
    for one in spec["replicatedJobs"]:
        inner = one["template"]["spec"]
        last = f"{name}-{one['name']}-{one['replicas'] - 1}-{inner['parallelism'] - 1}-abcde"
        assert len(last) <= 63
        assert inner["parallelism"] == inner["completions"]
        assert inner["template"]["spec"]["restartPolicy"] == "Never"  # For podFailurePolicy.


@pytest.mark.parametrize("job", targets.COMMITTED, ids=name_of)
def test_pods_have_the_chips_of_the_slice(job):
    tree, pod, target = manifests.render(job), template(job), job.target
    [container] = pod["containers"]
    [(resource, each)] = container["resources"]["limits"].items()
    inner = tree["spec"]["replicatedJobs"][0]["template"]["spec"] if job.kind == "gang" else None
    pods = inner["parallelism"] if inner else 1
    if target.chip.platform == "tpu":
        topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
        assert (resource, each) == ("google.com/tpu", 4)
        assert pods * each == math.prod(map(int, topology.split("x")))
    else:
        assert (resource, each) == ("nvidia.com/gpu", 8)
    slices = tree["spec"]["replicatedJobs"][0]["replicas"] if inner else 1
    assert slices * pods * each * target.chip.devices == target.num_devices


@pytest.mark.parametrize("job", targets.COMMITTED, ids=name_of)
def test_arguments_are_ones_that_jssd_takes(job):
    args = template(job)["containers"][0]["args"]
    told = dict(arg.removeprefix("--").split("=", 1) for arg in args if "=" in arg)
    config, _ = load(ROOT / told["config"])
    for name, value in told.items():
        if name.startswith("config."):
            *section, field = name.split(".")[1:]
            place = getattr(config, section[0]) if section else config
            value = value.replace("$(JOB_COMPLETION_INDEX)", "7")
            assert hasattr(place, field), name
            setattr(place, field, type(getattr(place, field))(value))
    validate(config, told["stages"].split(","))
    sizes = [getattr(config.mesh, axis) for axis in ("data", "fsdp", "tensor", "expert", "context")]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        assert job.target.num_devices % known == 0
    else:
        assert job.target.num_devices == known
    others = {arg.split("=")[0] for arg in args if not arg.startswith("--config.")}
    main = (ROOT / "jssd" / "main.py").read_text()
    for flag in others - {"--config"}:
        assert f'"{flag.removeprefix("--")}"' in main, f"jssd.main has no flag {flag}"


def test_meshes_are_those_of_the_plan_tables():
    kept = plans.kept("qwen3_4b_instruct")
    assert len(kept) == 5
    for plan in kept:
        [job] = [job for job in GANGS if job.hardware == plan["hardware"]]
        told = {f"--config.mesh.{axis}={n}" for axis, n in plan["mesh"].items() if n != 1}
        if plan["grad_accum"] > 1:
            told.add(f"--config.train.grad_accum={plan['grad_accum']}")
        assert told == set(job.flags)


def test_next_smaller_slices_do_not_hold_the_30b():
    kept = plans.kept("qwen3_30b_a3b_instruct")
    chips = {chip: [p for p in kept if plans.model(p) == chip] for chip in targets.POOLS}
    refused = {"b200": "b200x4", "v5e": "v5e-32", "v5p": "v5p-8", "v6e": "v6e-16"}
    for chip, name in refused.items():
        first, second = chips[chip][:2]
        assert (
            first["hardware"] == name
            and first["programs"]["train"]["complaint"]["kind"] == "memory"
        )
        assert second["fits"] and second == plans.smallest("qwen3_30b_a3b_instruct", chip)


@pytest.mark.parametrize(("preset", "source"), plans.SAME.items())
def test_presets_that_share_plans_have_the_same_programs(preset, source):
    ours, theirs = (load(ROOT / "configs" / f"{name}.py")[0] for name in (preset, source))
    assert architectures.read(ours.model) == architectures.read(theirs.model)
    assert ours.model.compute_dtype == theirs.model.compute_dtype
    steps = {"num_steps": 1, "warmup_steps": 0, "save_every": 1}
    train = [dataclasses.replace(config.train, **steps) for config in (ours, theirs)]
    assert train[0] == train[1]
    assert (ours.engine, ours.plan, ours.mesh) == (theirs.engine, theirs.plan, theirs.mesh)
    assert ours.sampling.max_new_tokens == theirs.sampling.max_new_tokens


def test_every_preset_has_a_slice_of_every_kind():
    table = render.hardware_table()
    for stem in ("llama31_8b_instruct", "qwen3_4b_instruct", "qwen3_30b_a3b_instruct"):
        rows = [row for row in table.splitlines() if f"`{stem}`" in row]
        assert len(rows) == len(targets.POOLS)
    assert "| v5p | `gke/v5p-sft.yaml` | `qwen3_30b_a3b_instruct` | v5p-16 |" in table


def outcome(tree, code=None, disrupted=False):
    """What Kubernetes makes of a pod's end by its Job's rules, and JobSet of that."""
    gang = tree["kind"] == "JobSet"
    inner = tree["spec"]["replicatedJobs"][0]["template"]["spec"] if gang else tree["spec"]
    action, message = "Count", ""
    for index, rule in enumerate(inner["podFailurePolicy"]["rules"]):
        if "onExitCodes" in rule and code in rule["onExitCodes"]["values"]:
            message = f"Container jssd for pod default/x failed with exit code {code} matching"
        elif "onPodConditions" in rule and disrupted:
            message = "Pod default/x has condition DisruptionTarget matching"
        else:
            continue
        action, message = rule["action"], f"{message} {rule['action']} rule at index {index}"
        break
    if not gang:
        return action
    if action == "Count":
        assert inner["backoffLimit"] == 0
    reason = "PodFailurePolicy" if action == "FailJob" else "BackoffLimitExceeded"
    for rule in tree["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [".*"])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_exit_codes_have_their_consequences():
    gang, alone = manifests.render(GANGS[0]), manifests.render(INDEXED[0])
    for code in (1, 2):
        assert outcome(gang, code) == "FailJobSet"
        assert outcome(alone, code) == "FailJob"
    for code, disrupted in ((42, False), (143, True), (None, True)):
        assert outcome(gang, code, disrupted) == "RestartJobSetAndIgnoreMaxRestarts"
        assert outcome(alone, code, disrupted) == "Ignore"
    for code in (134, 137, 140, 143):
        assert outcome(gang, code) == "RestartJobSet"
        assert outcome(alone, code) == "Count"
    # A disruption does not hide a mistake.
    assert outcome(gang, 2, disrupted=True) == "FailJobSet"


@pytest.mark.parametrize("job", targets.COMMITTED, ids=name_of)
def test_time_to_save_is_what_kubernetes_gives(job):
    graces = lambda job: [
        arg for arg in template(job)["containers"][0]["args"] if "survival.grace" in arg
    ]
    assert template(job)["terminationGracePeriodSeconds"] == 120
    assert graces(job) == ["--config.survival.grace=100"]
    # A spot machine is gone after 30 s: the default stays, which is less.
    assert graces(dataclasses.replace(job, spot=True)) == []
    assert SurvivalConfig().grace < 30
    own = "--config.survival.grace=50"
    assert graces(dataclasses.replace(job, flags=(own,))) == [own]


def test_nodes_that_are_tolerated():
    """Of A4 those of Google's charts; of a TPU its own taint, and spot's where it was asked for."""
    for job in targets.COMMITTED:
        keys = [
            one["key"].removeprefix("cloud.google.com/") for one in template(job)["tolerations"]
        ]
        if job.target.model == "b200":
            assert keys == ["nvidia.com/gpu", "impending-node-termination", "gke-queued"]
        else:
            assert keys == ["google.com/tpu"]
        spot = template(dataclasses.replace(job, spot=True))["tolerations"]
        assert spot[-1]["key"] == "cloud.google.com/gke-spot" and len(spot) == len(keys) + 1


def test_networks_of_a4_are_named_as_google_does():
    job = next(job for job in GANGS if job.name == "jssd-b200-hosts-sft")
    spec = manifests.render(job)["spec"]["replicatedJobs"][0]["template"]["spec"]
    cards = json.loads(spec["template"]["metadata"]["annotations"]["networking.gke.io/interfaces"])
    assert [card["network"] for card in cards] == ["default", *(f"rdma-{i}" for i in range(8))]
    args = spec["template"]["spec"]["containers"][0]["args"]
    assert f"--coordinator={job.name}-gang-0-0.{job.name}:8476" in args
    assert "--num_processes=2" in args


def test_a_job_of_ones_own(capsys):
    flags = ["--like=jssd-v6e-sft", "--name=mine", "--hardware=v6e-16", "--stages=sft", "--spot"]
    assert render.main([*flags, "--flags=--config.mesh.fsdp=16", "--image=me/jssd:1"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    inner = tree["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = inner["template"]["spec"]
    assert inner["parallelism"] == 4 and pod["containers"][0]["image"] == "me/jssd:1"
    assert pod["containers"][0]["args"][2:4] == ["--stages=sft", "--config.mesh.fsdp=16"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    for wrong, told in (
        (["--like=jssd-v6e-sft", "--hardware=v9-1"], "is unknown"),
        (["--like=nobody"], "must be one of"),
        (["--like=jssd-v6e-sample", "--hardware=v6e-64"], "must be one host"),
        (["--like=jssd-v6e-sample", "--stages=sft"], "can't be split into shards"),
        (["--like=jssd-v6e-sft", "--shards=2"], "is for indexed work"),
        (["--like=jssd-v6e-sft", "--hardware=v6e-8"], "is a host of 8 chips in some pools"),
        (["--like=jssd-b200-sft", "--hardware=b200x4"], "must have whole hosts of 8 GPUs"),
        (["--like=jssd-b200-sft", "--hardware=h200x8"], "must be of v5e"),
    ):
        assert render.main(wrong) == 2
        assert told in capsys.readouterr().err


def test_kueue_offers_what_jobs_ask_for():
    trees = list(yaml.safe_load_all((ROOT / "launch/gke/kueue.yaml").read_text()))
    flavors = {
        t["metadata"]["name"]: t["spec"]["nodeLabels"] for t in trees if "Flavor" in t["kind"]
    }
    [queue] = [t for t in trees if t["kind"] == "ClusterQueue"]
    offered = {
        (resource["name"], flavor["name"])
        for group in queue["spec"]["resourceGroups"]
        for flavor in group["flavors"]
        for resource in flavor["resources"]
    }
    for job in targets.COMMITTED:
        pod = template(job)
        [resource] = pod["containers"][0]["resources"]["limits"]
        assert (resource, job.target.model) in offered
        assert flavors[job.target.model].items() <= pod["nodeSelector"].items()
    assert set(flavors) == set(targets.POOLS) <= set(hardware.CHIPS)
