"""Manifests against schemas that refuse what they do not know.

Kinds of Kubernetes by its own, JobSet and Kueue by strict ones of ours. JobSet also by its whole
custom resource definitions, which are another project's and 0.8 MB each: in `shared/schemas` beside
the repository, where there is such a folder, or in one that JOBSET_SCHEMAS names.
"""

import os
import pathlib

import jsonschema
import kubernetes_validate
import pytest
import yaml

from launch import manifests, targets

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "launch" / "gke").glob("*.yaml"))
KUBERNETES = "1.33"
GANGS = [job for job in targets.COMMITTED if job.kind == "gang"]
INDEXED = [job for job in targets.COMMITTED if job.kind == "indexed"]
BESIDE = ROOT.parent / "shared" / "schemas"
NAMED = os.environ.get("JOBSET_SCHEMAS", "")
DEFINITIONS = sorted((pathlib.Path(NAMED) if NAMED else BESIDE).glob("jobset-*.yaml"))


def strict(properties, required=()):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, COUNT, ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
# JobSet v1alpha2 as of 0.10: of what we write, nothing else.
JOBSET = strict(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": strict({"name": TEXT, "labels": TEXTS, "annotations": TEXTS}, ["name"]),
        "spec": strict(
            {
                "ttlSecondsAfterFinished": COUNT,
                "failurePolicy": strict(
                    {
                        "maxRestarts": COUNT,
                        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate"]},
                        "rules": {
                            "type": "array",
                            "items": strict(
                                {
                                    "name": TEXT,
                                    "action": {
                                        "enum": [
                                            "FailJobSet",
                                            "RestartJobSet",
                                            "RestartJobSetAndIgnoreMaxRestarts",
                                        ]
                                    },
                                    "onJobFailureReasons": {
                                        "type": "array",
                                        "items": {
                                            "enum": [
                                                "BackoffLimitExceeded",
                                                "DeadlineExceeded",
                                                "FailedIndexes",
                                                "MaxFailedIndexesExceeded",
                                                "PodFailurePolicy",
                                            ]
                                        },
                                    },
                                    "onJobFailureMessagePatterns": {
                                        "type": "array",
                                        "items": TEXT,
                                    },
                                },
                                ["name", "action"],
                            ),
                        },
                    }
                ),
                "replicatedJobs": {
                    "type": "array",
                    "minItems": 1,
                    "items": strict(
                        {"name": TEXT, "replicas": COUNT, "template": strict({"spec": ANY})},
                        ["name", "template"],
                    ),
                },
            },
            ["replicatedJobs"],
        ),
    },
    ["apiVersion", "kind", "metadata", "spec"],
)

LISTS = lambda items: {"type": "array", "minItems": 1, "items": items}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
RESOURCE = {"enum": ["google.com/tpu", "nvidia.com/gpu"]}


def _kueue(kind, spec, **metadata):
    return strict(
        {
            "apiVersion": {"const": "kueue.x-k8s.io/v1beta2"},
            "kind": {"const": kind},
            "metadata": strict({"name": NAME} | metadata, ["name", *metadata]),
            "spec": spec,
        },
        ["apiVersion", "kind", "metadata", "spec"],
    )


# Kueue v1beta2: of what we write, nothing else. Only a local queue has a namespace.
KUEUE = {
    "ResourceFlavor": _kueue("ResourceFlavor", strict({"nodeLabels": TEXTS}, ["nodeLabels"])),
    "LocalQueue": _kueue(
        "LocalQueue", strict({"clusterQueue": NAME}, ["clusterQueue"]), namespace=NAME
    ),
    "ClusterQueue": _kueue(
        "ClusterQueue",
        strict(
            {
                "namespaceSelector": strict({}),  # All of them; absent it would be none.
                "resourceGroups": LISTS(
                    strict(
                        {
                            "coveredResources": LISTS(RESOURCE),
                            "flavors": LISTS(
                                strict(
                                    {
                                        "name": NAME,
                                        "resources": LISTS(
                                            strict(
                                                {"name": RESOURCE, "nominalQuota": COUNT},
                                                ["name", "nominalQuota"],
                                            )
                                        ),
                                    },
                                    ["name", "resources"],
                                )
                            ),
                        },
                        ["coveredResources", "flavors"],
                    )
                ),
            },
            ["namespaceSelector", "resourceGroups"],
        ),
    ),
}


def check(tree):
    kubernetes_validate.validate(tree, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_objects_are_valid(path):
    seen = 0
    for tree in yaml.safe_load_all(path.read_text()):
        if tree["kind"] == "JobSet":
            jsonschema.validate(tree, JOBSET)
            for one in tree["spec"]["replicatedJobs"]:
                job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
                check(job | one["template"])
        elif "kueue" in tree["apiVersion"]:
            jsonschema.validate(tree, KUEUE[tree["kind"]])
        else:
            check(tree)
        seen += 1
    assert seen


def test_the_validators_refuse_what_is_wrong():
    tree = manifests.render(GANGS[0])
    tree["spec"]["failurePolicy"]["rules"][0].pop("name")
    with pytest.raises(jsonschema.ValidationError, match="'name' is a required property"):
        jsonschema.validate(tree, JOBSET)
    tree = manifests.render(INDEXED[0])
    tree["spec"]["template"]["spec"]["restartPolcy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolcy"):
        check(tree)


def test_a_queue_gives_every_flavor_what_its_group_covers():
    """Kueue's webhook refuses others; what is strict above is tried with a wrong word, too."""
    trees = list(yaml.safe_load_all((ROOT / "launch/gke/kueue.yaml").read_text()))
    assert {tree["kind"] for tree in trees} == set(KUEUE)
    [queue] = [tree for tree in trees if tree["kind"] == "ClusterQueue"]
    seen = []
    for group in queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
            seen.append(flavor["name"])
    assert sorted(seen) == sorted(t["metadata"]["name"] for t in trees if "Flavor" in t["kind"])
    queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["quota"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'quota' was unexpected"):
        jsonschema.validate(queue, KUEUE["ClusterQueue"])


@pytest.mark.skipif(not BESIDE.is_dir(), reason="there is no folder shared/schemas beside this")
def test_both_definitions_are_there():
    """Where the folder is, the test below runs, and for the version of old clusters and of new."""
    tried = {path.name for path in DEFINITIONS}
    assert NAMED or {"jobset-v0.10.1.yaml", "jobset-v0.12.0.yaml"} <= tried


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_jobsets_are_valid_by_their_definition(path):
    crd = yaml.load(path.read_text(), yaml.CSafeLoader)
    [version] = [one for one in crd["spec"]["versions"] if one["name"] == "v1alpha2"]
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    schema["properties"]["metadata"] = {"type": "object"}  # It is checked elsewhere.
    for job in GANGS:
        jsonschema.validate(manifests.render(job), schema)
    wrong = manifests.render(GANGS[0])
    wrong["spec"]["failurePolicy"]["maxRestart"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'maxRestart' was unexpected"):
        jsonschema.validate(wrong, schema)


def _close(schema):
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)
