"""What no single object shows: whether a set of manifests agrees with itself. Content counts, not form.

`faults` needs the documents alone, so edited ones are judged like our own.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from halfbyte.deploy.objects import (
    ANSWER_ANNOTATION,
    COLD_START_ANNOTATION,
    GPU,
    QUEUE_LABEL,
    READY_TIMEOUT_ANNOTATION,
    Document,
)
from halfbyte.deploy.quantities import quantity
from halfbyte.text import json_of

LWS_NAME = 39
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


def faults(documents: Sequence[Document]) -> list[str]:
    """One line for each fault, with kind and name of the object to blame; empty if they agree."""
    cluster = Cluster(documents)
    return [line for check in CHECKS for line in check(cluster)]


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
        gpus, queue = gpus_of(one), _cluster_queue(cluster, one)
        if not gpus or queue is None:
            continue
        least, most = replicas_of(cluster, one)
        nominal, borrowed = gpu_quota(queue, "nominalQuota"), gpu_quota(queue, "borrowingLimit")
        if nominal is None:
            yield f"{shown(queue)}: has no quota of {GPU}"
            continue
        if nominal > least * gpus:
            yield (
                f"{shown(queue)}: floor of {nominal:g} GPUs is more than {least} least replicas of {gpus}: "
                f"{nominal - least * gpus:g} would never be used or lent"
            )
        pool = _pool_gpus(cluster, queue)
        within = min(
            nominal + borrowed
            if borrowed is not None and (queue.get("spec") or {}).get("cohortName")
            else (nominal if not (queue.get("spec") or {}).get("cohortName") else float("inf")),
            pool,
        )
        scaler = scaler_of(cluster, one)
        who = shown(scaler if scaler is not None else one)
        if least * gpus > within:
            yield f"{who}: {least} least replicas of {gpus} GPUs need {least * gpus}, {shown(queue)} allows {within:g}"
        elif most * gpus > within:
            yield f"{who}: {most} replicas of {gpus} GPUs need {most * gpus}, {shown(queue)} allows {within:g}"
        for resource in ("cpu", "memory"):
            yield from _enough(cluster, one, queue, resource, least)


def _cluster_queue(cluster: Cluster, workload: Document) -> Document | None:
    local = cluster.named("LocalQueue", queue_of(workload))
    return None if local is None else cluster.named("ClusterQueue", (local.get("spec") or {}).get("clusterQueue"))


def _pool_gpus(cluster: Cluster, queue: Document) -> float:
    """All that a queue's cohort has, its own quota and its queues'."""
    name = (queue.get("spec") or {}).get("cohortName")
    if name is None:
        return gpu_quota(queue, "nominalQuota") or 0
    members = [one for one in cluster.of("ClusterQueue") if (one.get("spec") or {}).get("cohortName") == name]
    cohort = cluster.named("Cohort", name)
    return sum(gpu_quota(one, "nominalQuota") or 0 for one in [*members, *([cohort] if cohort else [])])


def _enough(cluster: Cluster, workload: Document, queue: Document, resource: str, least: int) -> Iterator[str]:
    rows = [rows[resource] for rows in quotas(queue).values() if resource in rows]
    if not rows:
        return
    asked = least * sum(
        pods * quantity(((one.get("resources") or {}).get("requests") or {}).get(resource, 0))
        for _, template, pods in templates(workload)
        for one in containers(template)
    )
    has = sum(quantity(row.get("nominalQuota", 0)) for row in rows)
    has += sum(quantity(row.get("borrowingLimit", 0) or 0) for row in rows)
    if asked > has:
        yield f"{shown(queue)}: {resource} for {least} replicas of {shown(workload)} is {asked:g}, the quota {has:g}"


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
        if (queue := _cluster_queue(cluster, one)) is not None and flavor in quotas(queue)
    ]
    return bool(users) and all(
        _tolerated(taint, (template.get("spec") or {}).get("tolerations") or [])
        for one in users
        for _, template, _ in templates(one)
    )


def names(cluster: Cluster) -> Iterator[str]:
    """Within the limits of Kubernetes, and none twice."""
    for one in cluster.documents:
        name = name_of(one)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
            yield f"{one.get('kind')} {name[:80]}: is no name that Kubernetes takes"
        if one.get("kind") == "LeaderWorkerSet" and len(name) > LWS_NAME:
            yield f"{shown(one)}: has {len(name)} characters; under Kueue a LeaderWorkerSet may have {LWS_NAME}"
        if one.get("kind") in ("Service", "Deployment", "Job", "LocalQueue") and ("." in name or len(name) > 63):
            yield f"{shown(one)}: wanted at most 63 letters, digits and dashes"
    keys = Counter(
        (
            one.get("apiVersion", "").partition("/")[0],
            one.get("kind"),
            (one.get("metadata") or {}).get("namespace"),
            name_of(one),
        )
        for one in cluster.documents
    )
    for (_, kind, _, name), times in keys.items():
        if times > 1:
            yield f"{kind} {name}: stands there {times} times"


def startup(cluster: Cluster) -> Iterator[str]:
    """A start fits its probe's budget, and that every timeout."""
    for one in cluster.of(*SERVING):
        notes = (one.get("metadata") or {}).get("annotations") or {}
        budgets = [
            int(probe.get("failureThreshold", 3)) * int(probe.get("periodSeconds", 10))
            + int(probe.get("initialDelaySeconds", 0))
            for _, template, _ in templates(one)
            for container in containers(template)
            if (probe := container.get("startupProbe"))
        ]
        if not budgets:
            if gpus_of(one):
                yield f"{shown(one)}: has no startupProbe, so a start of minutes is killed by the liveness probe"
            continue
        budget, cold = max(budgets), _seconds(notes.get(COLD_START_ANNOTATION))
        if cold is not None and budget < cold:
            yield f"{shown(one)}: startup budget of {budget} s is below a cold start of {cold} s"
        progress = (one.get("spec") or {}).get("progressDeadlineSeconds", 600)
        if one.get("kind") == "Deployment" and gpus_of(one) and int(progress) <= budget:
            yield f"{shown(one)}: progressDeadlineSeconds {progress} is not above the startup budget of {budget} s"
        queue = _cluster_queue(cluster, one)
        timeout = (
            None
            if queue is None
            else _seconds(((queue.get("metadata") or {}).get("annotations") or {}).get(READY_TIMEOUT_ANNOTATION))
        )
        if queue is not None and timeout is not None and timeout <= budget:
            what = f"the startup budget of {budget} s of {name_of(one)}"
            yield f"{shown(queue)}: WaitForPodsReady of {timeout} s is not above {what}"


def _seconds(text: Any) -> int | None:
    return int(text) if isinstance(text, str | int) and str(text).isdigit() else None


def drain(cluster: Cluster) -> Iterator[str]:
    """A replica that ends is given its longest answers, and what its preStop takes."""
    for one in cluster.of(*SERVING):
        answer = _seconds(((one.get("metadata") or {}).get("annotations") or {}).get(ANSWER_ANNOTATION))
        for place, template, _ in templates(one):
            grace = int((template.get("spec") or {}).get("terminationGracePeriodSeconds", 30))
            before = max((_slept(container) for container in containers(template)), default=0)
            for container in containers(template):
                words = container.get("command") or []
                asked = _seconds(words[words.index("--drain-timeout") + 1]) if "--drain-timeout" in words[:-1] else None
                needed = max(answer or 0, asked or 0) + before
                if needed > grace:
                    yield (
                        f"{shown(one)}: {place} has terminationGracePeriodSeconds {grace}, to drain takes {needed} s"
                    )
                    break


def _slept(container: Document) -> int:
    command = ((((container.get("lifecycle") or {}).get("preStop") or {}).get("exec")) or {}).get("command") or []
    return next((int(word) for word in command if str(word).isdigit()), 0)


def scaling(cluster: Cluster) -> Iterator[str]:
    """An autoscaler's target is there, its bounds make sense, and its queries give one series."""
    for one in cluster.of("ScaledObject"):
        spec = one.get("spec") or {}
        target = spec.get("scaleTargetRef") or {}
        if cluster.named(target.get("kind", "Deployment"), target.get("name")) is None:
            yield f"{shown(one)}: its target {target.get('kind', 'Deployment')} {target.get('name')} is not here"
        least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount")
        if most is None:
            yield f"{shown(one)}: maxReplicaCount is missing, which means 100"
        elif int(least) > int(most):
            yield f"{shown(one)}: minReplicaCount {least} is above maxReplicaCount {most}"
        if int(least) == 0:
            yield f"{shown(one)}: minReplicaCount 0: a model that takes minutes to load is not scaled to nothing"
        for trigger in spec.get("triggers") or []:
            yield from _trigger(one, trigger)


def _trigger(scaler: Document, trigger: Document) -> Iterator[str]:
    if trigger.get("type") != "prometheus":
        return
    given = trigger.get("metadata") or {}
    missing = next((key for key in ("serverAddress", "query", "threshold") if not given.get(key)), None)
    if missing is not None:
        yield f"{shown(scaler)}: a Prometheus trigger lacks {missing}"
        return
    if not re.match(r"\s*(sum|max|min|avg|count|scalar)\s*\(", str(given["query"])):
        yield f"{shown(scaler)}: query {str(given['query'])[:60]} may give several series, which KEDA refuses: sum it"
    if str(given.get("ignoreNullValues", "true")).lower() != "false":
        yield f'{shown(scaler)}: ignoreNullValues is not "false": a missing series would count as 0 and scale down'


def rollout(cluster: Cluster) -> Iterator[str]:
    """There is no quota for a surge of GPUs."""
    for one in cluster.of("Deployment"):
        if not gpus_of(one):
            continue
        rolling = ((one.get("spec") or {}).get("strategy") or {}).get("rollingUpdate") or {}
        if str(rolling.get("maxSurge", "25%")) not in ("0", "0%"):
            yield f"{shown(one)}: maxSurge {rolling.get('maxSurge', '25%')}: a surge of GPUs has no quota, wanted 0"
    for one in cluster.of("LeaderWorkerSet"):
        strategy = (one.get("spec") or {}).get("rolloutStrategy") or {}
        surge = (strategy.get("rollingUpdateConfiguration") or {}).get("maxSurge", 0)
        if str(surge) not in ("0", "0%"):
            yield f"{shown(one)}: maxSurge {surge}: a surge of GPUs has no quota, wanted 0"


def budgets(cluster: Cluster) -> Iterator[str]:
    """A disruption budget selects pods that are there, of at least two replicas."""
    for one in cluster.of("PodDisruptionBudget"):
        chosen = (((one.get("spec") or {}).get("selector")) or {}).get("matchLabels") or {}
        owners = [workload for workload in cluster.of(*SERVING) if _selects(chosen, workload)]
        if not owners:
            yield f"{shown(one)}: selects no pods of these manifests"
        for workload in owners:
            if replicas_of(cluster, workload)[0] < 2:
                yield f"{shown(one)}: {shown(workload)} may have one replica, whose node could then never be drained"


def _selects(chosen: dict[str, str], workload: Document) -> bool:
    return any(
        chosen.items() <= ((template.get("metadata") or {}).get("labels") or {}).items()
        for _, template, _ in templates(workload)
    ) or (workload.get("kind") == "LLMInferenceService" and chosen.get("app.kubernetes.io/name") == name_of(workload))


def services(cluster: Cluster) -> Iterator[str]:
    """A service leads to a port that its pods open."""
    for one in cluster.of("Service"):
        spec = one.get("spec") or {}
        leader = {key: value for key, value in (spec.get("selector") or {}).items() if "worker-index" not in key}
        owners = [
            workload
            for workload in cluster.of("Deployment", "LeaderWorkerSet", "LLMInferenceService")
            if _selects(leader, workload)
        ]
        if not owners:
            yield f"{shown(one)}: selects no pods of these manifests"
            continue
        opened = {
            value
            for workload in owners
            for _, template, _ in templates(workload)
            for container in containers(template)
            for port in container.get("ports") or []
            for value in (port.get("containerPort"), port.get("name"))
        }
        for port in spec.get("ports") or []:
            target = port.get("targetPort", port.get("port"))
            if target not in opened:
                yield f"{shown(one)}: target port {target} is none that its pods open"


def volumes(cluster: Cluster) -> Iterator[str]:
    """Claims and config maps that pods mount are here."""
    for one in cluster.of(*WORKLOADS, "CronJob"):
        for _, template, _ in templates(one):
            for volume in (template.get("spec") or {}).get("volumes") or []:
                claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
                config = (volume.get("configMap") or {}).get("name")
                if claim is not None and cluster.named("PersistentVolumeClaim", claim) is None:
                    yield f"{shown(one)}: claim {claim} is no PersistentVolumeClaim here"
                if config is not None and cluster.named("ConfigMap", config) is None:
                    yield f"{shown(one)}: ConfigMap {config} is not here"


def tenants(cluster: Cluster) -> Iterator[str]:
    """Tenants' models are served, and each served model has a price."""
    doors = {
        str(words[2]): one
        for one in cluster.of("Deployment")
        for _, template, _ in templates(one)
        for container in containers(template)
        if (words := container.get("command") or [])[:2] == ["halfbyte", "serve"] and len(words) > 2
    }
    for one in cluster.of("ConfigMap"):
        data = one.get("data") or {}
        prices, people = _json(data.get("prices.json")), _json(data.get("tenants.json"))
        for key, found in (("prices.json", prices), ("tenants.json", people)):
            if key in data and found is None:
                yield f"{shown(one)}: {key} is no JSON object"
        if prices is not None:
            known = prices.get("usd_per_million_tokens") or {}
            for model, door in doors.items():
                if model not in known:
                    yield f"{shown(one)}: no price of model {model}, which {shown(door)} serves"
        if people is not None:
            for tenant, limits in (people.get("tenants") or {}).items():
                for model in limits.get("models") or []:
                    if model not in doors:
                        yield f"{shown(one)}: tenant {tenant} may use model {model}, which nobody serves"


def _json(text: Any) -> dict[str, Any] | None:
    try:
        found = json_of(text)
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def doors(cluster: Cluster) -> Iterator[str]:
    """A door's upstream is a service that is here."""
    for one in cluster.of("Deployment"):
        for _, template, _ in templates(one):
            for container in containers(template):
                words = [str(word) for word in container.get("command") or []]
                if words[:2] != ["halfbyte", "serve"] or "--upstream" not in words[:-1]:
                    continue
                for url in words[words.index("--upstream") + 1].split(","):
                    host = re.fullmatch(r"https?://([^:/]+)(?::(\d+))?(/.*)?", url)
                    service = None if host is None else cluster.named("Service", host[1].partition(".")[0])
                    if service is None:
                        yield f"{shown(one)}: upstream {url} is no Service here"
                    elif host is not None and host[2] is not None:
                        ports = [port.get("port") for port in (service.get("spec") or {}).get("ports") or []]
                        if int(host[2]) not in ports:
                            yield f"{shown(one)}: upstream {url}: {shown(service)} has ports {ports}"


def locked(cluster: Cluster) -> Iterator[str]:
    """Every container may do little."""
    for one in cluster.of(*WORKLOADS, "CronJob"):
        for _, template, _ in templates(one):
            pod = (template.get("spec") or {}).get("securityContext") or {}
            for container in containers(template):
                context = container.get("securityContext") or {}
                where = f"{shown(one)}: container {container.get('name')}"
                if not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
                    yield f"{where} may run as root: wanted runAsNonRoot true"
                if context.get("runAsUser", pod.get("runAsUser")) == 0:
                    yield f"{where} runs as user 0"
                if not context.get("readOnlyRootFilesystem"):
                    yield f"{where} may write to its root: wanted readOnlyRootFilesystem true"
                if context.get("allowPrivilegeEscalation") is not False:
                    yield f"{where}: wanted allowPrivilegeEscalation false"
                if context.get("privileged"):
                    yield f"{where} is privileged"


_SECRET_NAME = re.compile(r"password|passwd|secret|token$|api_?key|credential", re.I)
_SECRET_VALUE = re.compile(
    r"(\w+://[^/\s:@]+:[^/\s@]+@)|\bhb-[A-Za-z0-9]{4,}-|\bsk-[A-Za-z0-9]{16,}|\bhf_[A-Za-z0-9]{16,}"
)


def secrets(cluster: Cluster) -> Iterator[str]:
    """None in plain text."""
    for one in cluster.documents:
        if one.get("kind") == "Secret" and (one.get("data") or one.get("stringData")):
            yield f"{shown(one)}: holds its secret in plain text"
        elif (found := _SECRET_VALUE.search(json.dumps(one, default=str))) is not None:
            yield f"{shown(one)}: holds what looks like a secret ({found[0][:12]}...)"
    for one in cluster.of(*WORKLOADS, "CronJob"):
        for _, template, _ in templates(one):
            for container in containers(template):
                for row in container.get("env") or []:
                    if row.get("value") and _SECRET_NAME.search(str(row.get("name"))):
                        yield f"{shown(one)}: variable {row.get('name')} stands in plain text: wanted a secretKeyRef"


CHECKS: tuple[Callable[[Cluster], Iterator[str]], ...] = (
    names,
    queues,
    queue_labels_in_templates,
    quota_covers,
    tolerations,
    startup,
    drain,
    scaling,
    rollout,
    budgets,
    services,
    volumes,
    tenants,
    doors,
    locked,
    secrets,
)
