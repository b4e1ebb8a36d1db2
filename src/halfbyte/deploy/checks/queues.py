"""Whether queues, quotas and flavors of Kueue fit the workloads that name them."""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.checks.documents import (
    SERVING,
    WORKLOADS,
    Cluster,
    cluster_queue_of,
    containers,
    gpu_quota,
    gpus_of,
    name_of,
    queue_of,
    quotas,
    replicas_of,
    scaler_of,
    shown,
    templates,
)
from halfbyte.deploy.objects import (
    GPU,
    QUEUE_LABEL,
    Document,
)
from halfbyte.deploy.quantities import quantity


def queues(cluster: Cluster) -> Iterator[str]:
    """Every queue that is named exists, and lets its namespace in."""
    for one in cluster.of(*WORKLOADS):
        queue = queue_of(one)
        if queue is None:
            if one.get("kind") in SERVING and gpus_of(one):
                yield f"{shown(one)}: takes GPUs without the label {QUEUE_LABEL}, so Kueue does not count them"
            continue
        local = cluster.named("LocalQueue", queue)
        if local is None:
            yield f"{shown(one)}: queue {queue} is no LocalQueue here"
        elif (local.get("metadata") or {}).get("namespace") != (one.get("metadata") or {}).get("namespace"):
            yield f"{shown(one)}: queue {queue} is in another namespace"
        priority = ((one.get("metadata") or {}).get("labels") or {}).get("kueue.x-k8s.io/priority-class")
        if priority is not None and cluster.named("WorkloadPriorityClass", priority) is None:
            yield f"{shown(one)}: priority class {priority} is no WorkloadPriorityClass here; Kueue would admit nothing"
    for one in cluster.of("LocalQueue"):
        wanted = (one.get("spec") or {}).get("clusterQueue")
        if cluster.named("ClusterQueue", wanted) is None:
            yield f"{shown(one)}: ClusterQueue {wanted} is not here"
    for one in cluster.of("ClusterQueue"):
        spec = one.get("spec") or {}
        if spec.get("namespaceSelector") is None:
            yield f"{shown(one)}: namespaceSelector is missing, which admits no namespace"
        for flavor in quotas(one):
            if cluster.named("ResourceFlavor", flavor) is None:
                yield f"{shown(one)}: flavor {flavor} is no ResourceFlavor here"
        cohort = spec.get("cohortName")
        if cohort is not None and cluster.named("Cohort", cohort) is None:
            yield f"{shown(one)}: cohort {cohort} is no Cohort here"


def queue_labels_in_templates(cluster: Cluster) -> Iterator[str]:
    """Kueue queues a LeaderWorkerSet by its own label; in its pods it leaves them stuck (kueue#10965)."""
    for one in cluster.of("LeaderWorkerSet"):
        for place, template, _ in templates(one):
            if QUEUE_LABEL in ((template.get("metadata") or {}).get("labels") or {}):
                yield f"{shown(one)}: {place} carries {QUEUE_LABEL}; only the object itself may"


def quota_covers(cluster: Cluster) -> Iterator[str]:
    """Floors, least and most replicas against quota, and quota against the pool."""
    for one in cluster.of(*SERVING):
        gpus, queue = gpus_of(one), cluster_queue_of(cluster, one)
        if not gpus or queue is None:
            continue
        least, most = replicas_of(cluster, one)
        nominal = gpu_quota(queue, "nominalQuota")
        if nominal is None:
            yield f"{shown(queue)}: has no quota of {GPU}"
            continue
        if nominal > least * gpus:
            yield (
                f"{shown(queue)}: floor of {nominal:g} GPUs is more than {least} least replicas of {gpus}: "
                f"{nominal - least * gpus:g} would never be used or lent"
            )
        within = sum(most_of(cluster, queue, flavor, GPU) // gpus * gpus for flavor in quotas(queue))
        scaler = scaler_of(cluster, one)
        who = shown(scaler if scaler is not None else one)
        if least * gpus > within:
            yield f"{who}: {least} least replicas of {gpus} GPUs need {least * gpus}, {shown(queue)} allows {within:g}"
        elif most * gpus > within:
            yield f"{who}: {most} replicas of {gpus} GPUs need {most * gpus}, {shown(queue)} allows {within:g}"
        for resource in ("cpu", "memory"):
            yield from _enough(cluster, one, queue, resource, least)


def most_of(cluster: Cluster, queue: Document, flavor: str, resource: str) -> float:
    """Of one flavor, all that a queue can ever have: its own and what it may borrow, within what its cohort has."""
    row = quotas(queue).get(flavor, {}).get(resource)
    if row is None:
        return 0.0
    own, limit = quantity(row.get("nominalQuota", 0)), row.get("borrowingLimit")
    name = (queue.get("spec") or {}).get("cohortName")
    if name is None:
        return own
    members = [one for one in cluster.of("ClusterQueue") if (one.get("spec") or {}).get("cohortName") == name]
    cohort = cluster.named("Cohort", name)
    rows = (quotas(one).get(flavor, {}).get(resource) or {} for one in [*members, *([cohort] if cohort else [])])
    pool = sum(quantity(one.get("nominalQuota", 0)) for one in rows)
    return pool if limit is None else min(pool, own + quantity(limit))


def _asked(workload: Document, resource: str) -> float:
    """By all pods of one replica, or of a whole job."""
    at_once = int((workload.get("spec") or {}).get("parallelism") or 1) if workload.get("kind") == "Job" else 1
    return at_once * sum(
        pods * quantity((needs.get("requests") or {}).get(resource, (needs.get("limits") or {}).get(resource, 0)))
        for _, template, pods in templates(workload)
        for one in containers(template)
        if (needs := one.get("resources") or {})
    )


def _enough(cluster: Cluster, workload: Document, queue: Document, resource: str, least: int) -> Iterator[str]:
    flavors = [flavor for flavor, rows in quotas(queue).items() if resource in rows]
    asked, has = least * _asked(workload, resource), sum(most_of(cluster, queue, one, resource) for one in flavors)
    if flavors and asked > has:
        yield f"{shown(queue)}: {resource} for {least} replicas of {shown(workload)} is {asked:g}, the quota {has:g}"


def work_fits(cluster: Cluster) -> Iterator[str]:
    """Kueue admits a job whole: all its pods at once, or none."""
    for one in cluster.of("Job", "RayJob"):
        queue = cluster_queue_of(cluster, one)
        if queue is None:
            continue
        for resource in ("cpu", "memory", GPU):
            flavors = [flavor for flavor, rows in quotas(queue).items() if resource in rows]
            asked, has = _asked(one, resource), sum(most_of(cluster, queue, flavor, resource) for flavor in flavors)
            if flavors and asked > has:
                what = f"its pods ask for {asked:g} of {resource} together, {shown(queue)} can have {has:g}"
                yield f"{shown(one)}: {what}, so Kueue would never admit it"


def tolerations(cluster: Cluster) -> Iterator[str]:
    """A flavor's taints are tolerated by the flavor, which Kueue hands on, or by the pods."""
    for one in cluster.of("ResourceFlavor"):
        spec = one.get("spec") or {}
        for taint in spec.get("nodeTaints") or []:
            tolerated = taint.get("effect") == "PreferNoSchedule" or _tolerated(taint, spec.get("tolerations") or [])
            if not tolerated and not _pods_tolerate(cluster, name_of(one), taint):
                yield f"{shown(one)}: nothing tolerates its taint {taint.get('key')}={taint.get('value', '')}"


def _tolerated(taint: Document, given: Sequence[Document]) -> bool:
    for one in given:
        if one.get("key") not in (None, taint.get("key")) or one.get("effect") not in (None, "", taint.get("effect")):
            continue
        if one.get("operator", "Equal") == "Exists" or one.get("value", "") == taint.get("value", ""):
            return True
    return False


def _pods_tolerate(cluster: Cluster, flavor: str, taint: Document) -> bool:
    users = [
        one
        for one in cluster.of(*WORKLOADS)
        if (queue := cluster_queue_of(cluster, one)) is not None and flavor in quotas(queue)
    ]
    return bool(users) and all(
        _tolerated(taint, (template.get("spec") or {}).get("tolerations") or [])
        for one in users
        for _, template, _ in templates(one)
    )
