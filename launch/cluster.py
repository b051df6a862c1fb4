"""What a cluster holds once, before any job: storage, the service account, Kueue's queues."""

from typing import Any

from launch.targets import POOLS

BUCKET = "jssd-BUCKET"  # Put your own.


def storage() -> list[dict[str, Any]]:
    """Work directories on a file system that many hosts write, and data from a bucket, read only.

    Work directories need a file system: samples are appended and synced record by record, and files
    are put in place by renaming, neither of which a bucket does.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "jssd-runs"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "standard-rwx",  # Filestore; its smallest is 1 TiB.
                "resources": {"requests": {"storage": "1Ti"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "jssd-data"},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "capacity": {"storage": "1Ti"},  # Of no meaning for a bucket, but must be there.
                "storageClassName": "jssd-none",
                "mountOptions": ["implicit-dirs", "metadata-cache:ttl-secs:-1"],
                "csi": {
                    "driver": "gcsfuse.csi.storage.gke.io",
                    "volumeHandle": BUCKET,
                    "readOnly": True,
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "jssd-data"},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "jssd-none",
                "volumeName": "jssd-data",
                "resources": {"requests": {"storage": "1Ti"}},
            },
        },
    ]


def account() -> list[dict[str, Any]]:
    """Who the pods are. No role in the cluster: JAX is told its processes, and asks no API server.

    The bucket is opened to it in Google's IAM, see README.md.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "jssd"},
            "automountServiceAccountToken": False,
        }
    ]


def queues(quota: int = 256) -> list[dict[str, Any]]:
    """Kueue's objects: a flavor a kind of chip, one queue for all, `quota` chips of each."""
    flavors, groups = [], []
    for model, pool in POOLS.items():
        gpu = model == "b200"
        label = "gke-accelerator" if gpu else "gke-tpu-accelerator"
        flavors.append(
            {
                "apiVersion": "kueue.x-k8s.io/v1beta2",
                "kind": "ResourceFlavor",
                "metadata": {"name": model},
                "spec": {"nodeLabels": {f"cloud.google.com/{label}": pool.accelerator}},
            }
        )
    for resource, models in (
        ("google.com/tpu", [model for model in POOLS if model != "b200"]),
        ("nvidia.com/gpu", ["b200"]),
    ):
        share = [{"name": resource, "nominalQuota": quota}]
        groups.append(
            {
                "coveredResources": [resource],
                "flavors": [{"name": model, "resources": share} for model in models],
            }
        )
    return [
        *flavors,
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ClusterQueue",
            "metadata": {"name": "jssd"},
            "spec": {"namespaceSelector": {}, "resourceGroups": groups},
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": "jssd", "namespace": "default"},
            "spec": {"clusterQueue": "jssd"},
        },
    ]
