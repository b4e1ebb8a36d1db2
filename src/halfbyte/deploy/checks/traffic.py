"""Whether what stands before the pods agrees with them: autoscalers, rollouts, services, tenants, doors."""

import re
from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.checks.documents import (
    SERVING,
    Cluster,
    containers,
    gpus_of,
    name_of,
    replicas_of,
    shown,
    templates,
)
from halfbyte.deploy.objects import (
    Document,
)
from halfbyte.text import json_of


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


def ai_routes(cluster: Cluster) -> Iterator[str]:
    """What Envoy AI Gateway routes to is here, and leads to a service that is here."""
    for one in cluster.of("AIGatewayRoute"):
        for rule in (one.get("spec") or {}).get("rules") or []:
            for ref in rule.get("backendRefs") or []:
                kind = str(ref.get("kind") or "AIServiceBackend")
                if not ref.get("namespace") and cluster.named(kind, ref.get("name")) is None:
                    yield f"{shown(one)}: {kind} {ref.get('name')} is not here"
    for one in cluster.of("AIServiceBackend"):
        ref = (one.get("spec") or {}).get("backendRef") or {}
        if not ref.get("namespace") and cluster.named("Backend", ref.get("name")) is None:
            yield f"{shown(one)}: Backend {ref.get('name')} is not here"
    for one in cluster.of("Backend"):
        for endpoint in (one.get("spec") or {}).get("endpoints") or []:
            where = endpoint.get("fqdn") or {}
            host = re.fullmatch(r"([^.]+)\.([^.]+)\.svc(\..+)?", str(where.get("hostname")))
            if host is None:
                continue  # outside the cluster
            service = cluster.named("Service", host[1])
            if service is None or (service.get("metadata") or {}).get("namespace") != host[2]:
                yield f"{shown(one)}: {where['hostname']} is no Service here"
                continue
            ports = [port.get("port") for port in (service.get("spec") or {}).get("ports") or []]
            if where.get("port") not in ports:
                yield f"{shown(one)}: port {where.get('port')}: {shown(service)} has ports {ports}"
