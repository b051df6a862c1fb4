"""A job as Kubernetes objects: a JobSet of processes that work together, or an indexed Job.

Exit codes of jssd.main decide what happens next, never the number of a restart: 1 and 2 end the
job, 42 (saved after SIGTERM) and a disruption start it again for free, all others (140: hung, 128
and above: a signal) start it again and count.
"""

import json
import math
from typing import Any

from launch import flags
from launch.targets import POOLS, Job, hosts

IMAGE = "REGION-docker.pkg.dev/PROJECT/jssd/jssd:"  # And tpu or cuda: put your own.
RESTARTS = 50  # Those that count. XPK's own advice; its default, 0, gives up at the first.
GRACE = 120  # Seconds from SIGTERM to SIGKILL. Spot machines go after about 30 whatever this says.
SAVING = GRACE - 20  # Of it jssd's own, survival.grace; its default is what a spot machine leaves.
PORT = 8476  # Of the coordinator, where JAX is told.
USER = 1000  # Of the images.
_GIB = "/usr/local/gib"
# Google's script sets NCCL up for its network; exec leaves Python as process 1, which gets SIGTERM.
_WITH_GIB = f'source {_GIB}/scripts/set_nccl_env.sh && exec python -m jssd.main "$@"'
MISTAKE = {"operator": "In", "values": [1, 2]}
SAVED = {"operator": "In", "values": [42]}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


def render(job: Job) -> dict[str, Any]:
    """The object of a job.

    Raises:
      ValueError: hardware that is not made of whole hosts.
    """
    return jobset(job) if job.kind == "gang" else indexed(job)


def jobset(job: Job) -> dict[str, Any]:
    """A gang: one replica a slice, one pod a host; one failure ends, or restarts, all of them."""
    target = job.target
    tpu = target.chip.platform == "tpu"
    count = hosts(target)
    if tpu:
        args = (*_args(job), "--distributed")
    else:
        first = f"{job.name}-gang-0-0.{job.name}:{PORT}"
        args = (
            *_args(job), f"--coordinator={first}", f"--num_processes={count}",
            "--process_id=$(JOB_COMPLETION_INDEX)",
        )  # fmt: skip
    metadata = _metadata(job)
    if tpu:  # One slice is one node pool.
        exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {exclusive: "cloud.google.com/gke-nodepool"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "ttlSecondsAfterFinished": 43200,
            "failurePolicy": {
                "maxRestarts": RESTARTS,
                # New pods only when all old ones are gone: a slice has room for one set.
                "restartStrategy": "BlockingRecreate",
                # The first that matches. Both come from the pods' rules, and only the text that
                # Kubernetes gives as the reason tells them apart.
                "rules": [
                    {
                        "name": "mistake",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                        "onJobFailureMessagePatterns": [r".*exit code [12] matching.*"],
                    },
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    },
                ],
            },
            "replicatedJobs": [
                {
                    "name": "gang",
                    "replicas": target.slices,
                    "template": {
                        "spec": {
                            "parallelism": count,
                            "completions": count,
                            "completionMode": "Indexed",
                            "backoffLimit": 0,  # JobSet decides, at the first failure.
                            "podFailurePolicy": _failures("FailJob"),
                            "template": _pod(job, args),
                        }
                    },
                }
            ],
        },
    }


def indexed(job: Job) -> dict[str, Any]:
    """Independent work: a pod that fails is started again alone."""
    args = _args(job)
    if job.shards > 1:
        args = (*args, f"--config.shard=$(JOB_COMPLETION_INDEX)/{job.shards}")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job),
        "spec": {
            "ttlSecondsAfterFinished": 43200,
            "parallelism": job.shards,
            "completions": job.shards,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": RESTARTS,
            "podFailurePolicy": _failures("Ignore"),
            "template": _pod(job, args),
        },
    }


def _failures(preempted: str) -> dict[str, Any]:
    """What a pod's end means for its Job: a mistake ends it, and `preempted` is done otherwise."""
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": MISTAKE},
            {"action": preempted, "onExitCodes": SAVED},
            {"action": preempted, "onPodConditions": DISRUPTED},
        ]
    }


def _metadata(job: Job) -> dict[str, Any]:
    return {"name": job.name, "labels": {"kueue.x-k8s.io/queue-name": job.queue}}


def _args(job: Job) -> tuple[str, ...]:
    grace = "--config.survival.grace="
    given = job.spot or any(flag.startswith(grace) for flag in job.flags)
    return (
        f"--config={job.config}",
        f"--workdir={job.workdir}",
        f"--stages={','.join(job.stages)}",
        *job.flags,
        *(() if given else (f"{grace}{SAVING}",)),
    )


def _pod(job: Job, args: tuple[str, ...]) -> dict[str, Any]:
    target, pool = job.target, POOLS[job.target.model]
    tpu = target.chip.platform == "tpu"
    annotations = {"gke-gcsfuse/volumes": "true"}
    resource = "google.com/tpu" if tpu else "nvidia.com/gpu"
    if tpu:
        selector = {
            "cloud.google.com/gke-tpu-accelerator": pool.accelerator,
            "cloud.google.com/gke-tpu-topology": "x".join(map(str, target.shape)),
        }
        each = math.prod(target.shape) // hosts(target)
        command, environment = ["python", "-m", "jssd.main"], _tpu_environment(job)
    else:
        selector = {"cloud.google.com/gke-accelerator": pool.accelerator}
        each = target.shape[1]
        command, environment = ["bash", "-c", _WITH_GIB, "jssd.main"], _gpu_environment(job)
        annotations |= _nics()
        annotations["kueue.x-k8s.io/podset-preferred-topology"] = "kubernetes.io/hostname"
    tolerations: list[dict[str, Any]] = [
        {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
    ]
    if not tpu:  # As in Google's charts for A4: nodes of queued capacity, or soon to be repaired.
        tolerations += [
            {"key": "cloud.google.com/impending-node-termination", "operator": "Exists"},
            {
                "key": "cloud.google.com/gke-queued",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            },
        ]
    if job.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append(
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        )
    if job.reservation:
        selector["cloud.google.com/reservation-name"] = job.reservation
    mounts = [("runs", "/runs"), ("data", "/data"), ("shm", "/dev/shm")]
    volumes: list[dict[str, Any]] = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": "jssd-runs"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "jssd-data", "readOnly": True}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if not tpu:
        mounts.append(("gib", _GIB))
        volumes.append({"name": "gib", "hostPath": {"path": "/home/kubernetes/bin/gib"}})
    return {
        "metadata": {"annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "serviceAccountName": "jssd",
            # Graded programs are a model's: nothing in the pod may ask the cluster for anything.
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
            "nodeSelector": selector,
            "tolerations": tolerations,
            "containers": [
                {
                    "name": "jssd",
                    "image": job.image or IMAGE + ("tpu" if tpu else "cuda"),
                    "command": command,
                    "args": list(args),
                    "env": environment,
                    "resources": {"requests": {resource: each}, "limits": {resource: each}},
                    "volumeMounts": [{"name": n, "mountPath": path} for n, path in mounts],
                }
            ],
            "volumes": volumes,
        },
    }


def _environment(job: Job, **own: str) -> list[dict[str, Any]]:
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    values = own | flags.environment(job.target.model, job.target.slices)
    values |= {"HF_HOME": "/runs/.huggingface", "PYTHONUNBUFFERED": "1"}
    token = {"name": "jssd-huggingface", "key": "token", "optional": True}
    return [
        # First: arguments name it.
        {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
        *({"name": name, "value": value} for name, value in sorted(values.items())),
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}},
    ]


def _tpu_environment(job: Job) -> list[dict[str, Any]]:
    # Without the levels libtpu says little of what went wrong.
    return _environment(
        job, JAX_PLATFORMS="tpu,cpu", TPU_MIN_LOG_LEVEL="0", TPU_STDERR_LOG_LEVEL="0"
    )


def _gpu_environment(job: Job) -> list[dict[str, Any]]:
    return _environment(
        job,
        JAX_PLATFORMS="cuda,cpu",
        LD_LIBRARY_PATH=f"/usr/local/nvidia/lib64:{_GIB}/lib64",
        NCCL_NET="gIB",
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.92",  # What stage plan reckons with.
    )


def _nics() -> dict[str, str]:
    """A4's networks without the host's: the default, and eight of RDMA for gIB."""
    cards = [{"interfaceName": "eth0", "network": "default"}]
    cards += [{"interfaceName": f"eth{i + 2}", "network": f"rdma-{i}"} for i in range(8)]
    return {
        "networking.gke.io/default-interface": "eth0",
        "networking.gke.io/interfaces": json.dumps(cards),
    }
