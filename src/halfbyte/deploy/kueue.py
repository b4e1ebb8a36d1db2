"""Kueue: a flavor and a cohort for each pool, a queue for each model with its floor, and one for batch with none.

A model owns the GPUs of its least replicas; all beyond is the cohort's, and borrowed: by models that grow, and by batch
work, which gives way. Pools that a model may fall back between are one cohort, as quota is borrowed within one only;
its queue names their flavors in order. In the first where there is room Kueue stops; rather than displace batch work it
looks in the next. Sources: docs/deploy.md, Kueue 0.19's API v1beta2.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.objects import DOMAIN, GPU, READY_TIMEOUT_ANNOTATION, Document, metadata
from halfbyte.deploy.platform import Platform, Pool

API = "kueue.x-k8s.io/v1beta2"
BATCH = "batch"
HELD = "batch-held"
BATCH_PRIORITY = 0
RESOURCES = ("cpu", "memory", GPU)
COMPUTE_MAJOR = "nvidia.com/gpu.compute.major"


def kueue(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    pools = platform.pools
    cohort = cohorts(pools, served)
    for pool in pools:
        if pool.topology:
            yield _object("Topology", pool.name, {"levels": [{"nodeLabel": label} for label in pool.topology]})
        yield _flavor(pool, served)
        if cohort[pool.name] == pool.name:
            yield _cohort([one for one in pools if cohort[one.name] == pool.name], served)
    for one in served:
        yield _cluster_queue(platform, one, cohort[one.pool.name])
    yield _batch_queue(platform, pools)
    for one in served:
        yield _priority(one.object, one.model.priority, f"Replicas of {one.name}.")
    yield _priority(BATCH, BATCH_PRIORITY, "Work that gives its GPUs back when a model grows.")
    for one in served:
        yield _local_queue(platform, one.queue, one.queue)
    yield _local_queue(platform, BATCH, BATCH)
    yield _local_queue(platform, HELD, BATCH, stopPolicy="Hold")


def cohorts(pools: Sequence[Pool], served: Sequence[Served]) -> dict[str, str]:
    """Pool -> its cohort, which is called after the first of its pools."""
    found = {pool.name: pool.name for pool in pools}
    order = list(found)
    for one in served:
        joined = {found[pool.name] for pool in one.pools}
        first = min(joined, key=order.index)
        found = {pool: first if cohort in joined else cohort for pool, cohort in found.items()}
    return found


def node_labels(pool: Pool, major: str | None) -> dict[str, str]:
    """Of the pool's nodes. A GPU's family does not tell B200 from RTX PRO cards; the compute major does."""
    return dict(pool.node_labels) or ({COMPUTE_MAJOR: major} if major is not None else {})


def _object(kind: str, name: str, spec: Document, **meta: dict[str, str]) -> Document:
    return {"apiVersion": API, "kind": kind, "metadata": metadata(name, None, **meta), "spec": spec}


def _flavor(pool: Pool, served: Sequence[Served]) -> Document:
    from halfbyte.plan.hardware import find_gpu

    gpu = find_gpu(pool.gpu)
    major = gpu.compute_capability.partition(".")[0] if gpu.platform == "cuda" else None
    spec: Document = {"nodeLabels": node_labels(pool, major)}
    if pool.taint is not None:
        taint = pool.taint
        value = {"value": taint.value} if taint.value else {}
        spec["nodeTaints"] = [{"key": taint.key, **value, "effect": taint.effect}]
        operator = "Equal" if taint.value else "Exists"
        spec["tolerations"] = [{"key": taint.key, "operator": operator, **value, "effect": taint.effect}]
    if pool.topology:
        spec["topologyName"] = pool.name
    return _object("ResourceFlavor", pool.name, spec, labels={f"{DOMAIN}/gpu": pool.gpu})


def _amounts(pool: Pool, gpus: int) -> dict[str, str | int]:
    """Of each resource, by the share of GPUs."""
    share = gpus / pool.gpus_per_node
    return {"cpu": int(pool.cpus_per_node * share), "memory": f"{int(pool.memory_per_node_gib * share)}Gi", GPU: gpus}


def _group(flavors: Sequence[tuple[Pool, int, int | None, bool]]) -> list[Document]:
    """(pool, GPUs of its own, GPUs that it may borrow, whether what is its own is never lent) -> resourceGroups."""
    rows = []
    for pool, own, borrowed, kept in flavors:
        quota, more = _amounts(pool, own), None if borrowed is None else _amounts(pool, borrowed)
        resources = []
        for name in RESOURCES:
            row: Document = {"name": name, "nominalQuota": quota[name]}
            if more is not None:
                row["borrowingLimit"] = more[name]
            if kept:
                row["lendingLimit"] = "0Gi" if name == "memory" else 0
            resources.append(row)
        rows.append({"name": pool.name, "resources": resources})
    return [{"coveredResources": list(RESOURCES), "flavors": rows}]


def owned(pool: Pool, served: Sequence[Served]) -> int:
    """GPUs of a pool that are models' own."""
    return sum(one.floor for one in served if one.pool.name == pool.name)


def _cohort(pools: Sequence[Pool], served: Sequence[Served]) -> Document:
    """Its own quota is what no model owns."""
    rows = [(pool, pool.gpus - owned(pool, served), None, False) for pool in pools]
    return _object("Cohort", pools[0].name, {"resourceGroups": _group(rows)})


def _cluster_queue(platform: Platform, one: Served, cohort: str) -> Document:
    timeout = platform.cluster.wait_for_pods_ready_seconds
    stated = {"annotations": {READY_TIMEOUT_ANNOTATION: str(timeout)}} if timeout is not None else {}
    spec: Document = {
        "cohortName": cohort,
        "queueingStrategy": "BestEffortFIFO",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": platform.namespace}},
        "flavorFungibility": {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"},
        "preemption": {
            "reclaimWithinCohort": "Any",
            "withinClusterQueue": "LowerPriority",
            "borrowWithinCohort": {"policy": "LowerPriority", "maxPriorityThreshold": BATCH_PRIORITY},
        },
        "resourceGroups": _group(
            [
                (pool, one.floor if pool == one.pool else 0, one.more(pool) * one.gpus, pool == one.pool)
                for pool in one.pools
            ]
        ),
    }
    return _object("ClusterQueue", one.queue, spec, **stated)


def _batch_queue(platform: Platform, pools: Sequence[Pool]) -> Document:
    """Floor 0 in one cohort: a queue is in one, so batch work runs in the first pool."""
    pool = pools[0]
    spec: Document = {
        "cohortName": pool.name,
        "queueingStrategy": "BestEffortFIFO",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": platform.namespace}},
        "preemption": {"reclaimWithinCohort": "Never", "withinClusterQueue": "LowerPriority"},
        "resourceGroups": _group([(pool, 0, pool.gpus, False)]),
    }
    return _object("ClusterQueue", BATCH, spec)


def _priority(name: str, value: int, description: str) -> Document:
    return {
        "apiVersion": API,
        "kind": "WorkloadPriorityClass",
        "metadata": metadata(name, None),
        "value": value,
        "description": description,
    }


def _local_queue(platform: Platform, name: str, queue: str, **more: str) -> Document:
    return {
        "apiVersion": API,
        "kind": "LocalQueue",
        "metadata": metadata(name, platform.namespace),
        "spec": {"clusterQueue": queue, **more},
    }
