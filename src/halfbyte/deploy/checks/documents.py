"""The objects of a set of manifests, and what the checks ask of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from halfbyte.deploy.objects import (
    GPU,
    QUEUE_LABEL,
    Document,
)
from halfbyte.deploy.quantities import quantity

WORKLOADS = ("Deployment", "LeaderWorkerSet", "LLMInferenceService", "Job", "StatefulSet", "RayJob")


SERVING = ("Deployment", "LeaderWorkerSet", "LLMInferenceService")


class Cluster:
    """The documents, by kind and name."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = [one for one in documents if isinstance(one, dict)]

    def of(self, *kinds: str) -> Iterator[Document]:
        return (one for one in self.documents if one.get("kind") in kinds)

    def named(self, kind: str, name: Any) -> Document | None:
        return next((one for one in self.of(kind) if name_of(one) == name), None)


def name_of(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name"))


def shown(document: Document) -> str:
    return f"{document.get('kind')} {name_of(document)}"


def templates(document: Document) -> Iterator[tuple[str, Document, int]]:
    """(place, pod template, pods of one replica) of a workload."""
    spec = document.get("spec") or {}
    kind = document.get("kind")
    if kind == "LeaderWorkerSet":
        inner = spec.get("leaderWorkerTemplate") or {}
        size, worker = int(inner.get("size") or 1), inner.get("workerTemplate")
        leader = inner.get("leaderTemplate")
        if leader is not None:
            yield "leaderTemplate", leader, 1
        if worker is not None and size > (leader is not None):
            yield "workerTemplate", worker, size - (leader is not None)
    elif kind == "LLMInferenceService":
        if "template" in spec:
            yield "template", {"spec": spec["template"]}, 1
        if "worker" in spec:
            yield "worker", {"spec": spec["worker"]}, 1
    elif kind in ("Deployment", "Job", "StatefulSet"):
        yield "template", spec.get("template") or {}, 1
    elif kind == "RayJob":
        cluster = spec.get("rayClusterSpec") or {}
        yield "headGroupSpec", (cluster.get("headGroupSpec") or {}).get("template") or {}, 1
        for group in cluster.get("workerGroupSpecs") or []:
            pods = int(group.get("replicas") or 0) * int(group.get("numOfHosts") or 1)
            yield str(group.get("groupName")), group.get("template") or {}, pods
        if spec.get("submitterPodTemplate"):
            yield "submitterPodTemplate", spec["submitterPodTemplate"], 1
    elif kind == "CronJob":
        job = ((spec.get("jobTemplate") or {}).get("spec")) or {}
        yield "jobTemplate", job.get("template") or {}, 1


def containers(template: Document) -> list[Document]:
    spec = template.get("spec") or {}
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def gpus_of(document: Document) -> int:
    """GPUs of one replica."""
    return sum(
        pods * int(quantity(((one.get("resources") or {}).get("limits") or {}).get(GPU, 0)))
        for _, template, pods in templates(document)
        for one in containers(template)
    )


def queue_of(document: Document) -> str | None:
    return ((document.get("metadata") or {}).get("labels") or {}).get(QUEUE_LABEL)


def quotas(queue: Document) -> dict[str, dict[str, Document]]:
    """Flavor -> resource -> row, of a ClusterQueue or Cohort."""
    groups = (queue.get("spec") or {}).get("resourceGroups") or []
    return {
        str(flavor.get("name")): {str(row.get("name")): row for row in flavor.get("resources") or []}
        for group in groups
        for flavor in group.get("flavors") or []
    }


def gpu_quota(queue: Document, field: str) -> float | None:
    """Sum over flavors; None where one does not say it."""
    rows = [rows[GPU] for rows in quotas(queue).values() if GPU in rows]
    values = [row.get(field) for row in rows]
    return None if any(value is None for value in values) else sum(quantity(value) for value in values)


def replicas_of(cluster: Cluster, workload: Document) -> tuple[int, int]:
    """Least and most, by the autoscaler where there is one."""
    scaler = scaler_of(cluster, workload)
    own = int((workload.get("spec") or {}).get("replicas") or 1)
    if scaler is None:
        return own, own
    spec = scaler.get("spec") or {}
    return int(spec.get("minReplicaCount") or 0), int(spec.get("maxReplicaCount") or 100)


def scaler_of(cluster: Cluster, workload: Document) -> Document | None:
    for one in cluster.of("ScaledObject"):
        target = (one.get("spec") or {}).get("scaleTargetRef") or {}
        if target.get("name") == name_of(workload) and target.get("kind", "Deployment") == workload.get("kind"):
            return one
    return None


def cluster_queue_of(cluster: Cluster, workload: Document) -> Document | None:
    local = cluster.named("LocalQueue", queue_of(workload))
    return None if local is None else cluster.named("ClusterQueue", (local.get("spec") or {}).get("clusterQueue"))
