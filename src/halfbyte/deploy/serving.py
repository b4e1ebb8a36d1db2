"""Replicas of a model: a Deployment where one fits a node, a LeaderWorkerSet where it spreads over several, or KServe's
object. One replica in flight at a time: there is no quota for a second one beside it.
"""

from collections.abc import Iterator

from halfbyte.deploy.facts import PERIOD_S, PORT, ROUTER_S, Served
from halfbyte.deploy.fallback import start
from halfbyte.deploy.objects import (
    ANSWER_ANNOTATION,
    COLD_START_ANNOTATION,
    FINGERPRINT_ANNOTATION,
    GATE_ANNOTATION,
    GPU,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    Document,
    disruption_budget,
    labels,
    locked_down,
    metadata,
    pod_security,
    scratch,
    selector,
    service,
)
from halfbyte.deploy.platform import Platform, Taint
from halfbyte.deploy.weights import mount, volume

ENGINE = "engine"
LEADER = "leaderworkerset.sigs.k8s.io/worker-index"
SHARED_MEMORY_GIB = 32
PROGRESS_MARGIN_S = 300


def serving(platform: Platform, one: Served) -> Iterator[Document]:
    leader = {LEADER: "0"} if one.nodes > 1 else {}
    if platform.options.serving == "kserve":
        yield _kserve(platform, one)
    elif one.nodes > 1:
        yield _leader_worker_set(platform, one)
    else:
        yield _deployment(platform, one)
    yield service(one.object, platform.namespace, ENGINE, PORT, PORT, **leader)
    if one.min_replicas >= 2:
        yield disruption_budget(one.object, platform.namespace, ENGINE)


def scale_target(platform: Platform, one: Served) -> Document:
    """What the autoscaler scales."""
    if platform.options.serving == "kserve":
        return {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "name": one.object}
    if one.nodes > 1:
        return {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": one.object}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": one.object}


def _marks(one: Served) -> dict[str, str]:
    return labels(one.object, ENGINE, one.name)


def _queued(one: Served) -> dict[str, str]:
    """Labels of the object itself: in the pod templates of a LeaderWorkerSet they would queue each pod apart."""
    return _marks(one) | {QUEUE_LABEL: one.queue, PRIORITY_LABEL: one.object}


def _stated(one: Served) -> dict[str, str]:
    """What it was decided by."""
    decision = one.decision
    return {
        GATE_ANNOTATION: "no-gate" if decision is None else f"pass by policy {decision.policy.name}",
        **({} if decision is None else {FINGERPRINT_ANNOTATION: decision.checkpoint.fingerprint}),
        COLD_START_ANNOTATION: str(one.cold_start_s),
        ANSWER_ANNOTATION: str(one.drain_s),
    }


def _deployment(platform: Platform, one: Served) -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(one.object, platform.namespace, _queued(one), _stated(one)),
        "spec": {
            "replicas": one.min_replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": one.startup_budget_s + PROGRESS_MARGIN_S,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector(one.object, ENGINE)},
            "template": _pod(platform, one),
        },
    }


def _leader_worker_set(platform: Platform, one: Served) -> Document:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(one.object, platform.namespace, _queued(one), _stated(one)),
        "spec": {
            "replicas": one.min_replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": one.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _pod(platform, one),
                "workerTemplate": _pod(platform, one, follower=True),
            },
        },
    }


def _kserve(platform: Platform, one: Served) -> Document:
    """KServe copies labels and annotations of the spec to what it makes; its own start-up probe is too short here."""
    deployment, pod = one.plan.deployment, _pod(platform, one)["spec"]
    spec: Document = {
        "model": {"uri": f"pvc://{one.object}-weights/{one.name}", "name": one.name},
        "replicas": one.min_replicas,
        "parallelism": {"tensor": deployment.tp, "pipeline": deployment.pp},
        "labels": _queued(one),
        "annotations": _stated(one),
        "template": pod,
        "router": {"route": {}, "gateway": {}},
    }
    if one.nodes > 1:
        spec["worker"] = _pod(platform, one, follower=True)["spec"]
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": metadata(one.object, platform.namespace, _queued(one), _stated(one)),
        "spec": spec,
    }


def _pod(platform: Platform, one: Served, follower: bool = False) -> Document:
    """Template of a pod. follower: of a replica's other nodes, which answer nobody."""
    volumes, mounts, home = scratch(shared_memory_gib=SHARED_MEMORY_GIB)
    meta: Document = {"labels": _marks(one)}
    if one.pool.topology and one.nodes > 1:
        level = one.pool.topology[0]
        meta["annotations"] = {
            "kueue.x-k8s.io/podset-required-topology": level,
            "kueue.x-k8s.io/podset-group-name": one.object,
        }
    spec: Document = {
        "terminationGracePeriodSeconds": one.grace_s,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [_container(platform, one, [mount(platform, one), *mounts], home, follower)],
        "volumes": [volume(platform, one), *volumes],
    }
    taints = list(dict.fromkeys(pool.taint for pool in one.pools if pool.taint is not None))
    if taints:
        spec["tolerations"] = [_toleration(taint) for taint in taints]
    return {"metadata": meta, "spec": spec}


def _toleration(taint: Taint) -> Document:
    how = {"operator": "Equal", "value": taint.value} if taint.value else {"operator": "Exists"}
    return {"key": taint.key, **how, "effect": taint.effect}


def _container(
    platform: Platform, one: Served, mounts: list[Document], home: list[Document], follower: bool
) -> Document:
    engine = one.command.engine
    more = ["--host", "0.0.0.0", "--port", str(PORT), *(engine.follower_flags() if follower else [])]
    cpu, memory = one.cpus, one.memory_gib
    environment = home + [{"name": name, "value": value} for name, value in sorted(one.command.env.items())]
    environment += [{"name": "HF_HUB_OFFLINE", "value": "1"}]
    found: Document = {
        "name": ENGINE,
        "image": getattr(platform.images, engine.name),
        "command": start(one.places, more),
        "env": environment,
        "resources": {
            "requests": {"cpu": str(cpu), "memory": f"{memory}Gi", GPU: one.gpus_per_node},
            "limits": {"memory": f"{memory}Gi", GPU: one.gpus_per_node},
        },
        "securityContext": locked_down(),
        "volumeMounts": mounts,
    }
    if not follower:
        health: Document = {"httpGet": {"path": "/health", "port": PORT}}
        found |= {
            "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": {
                **health,
                "periodSeconds": PERIOD_S,
                "timeoutSeconds": 5,
                "failureThreshold": -(-one.startup_budget_s // PERIOD_S),
            },
            "readinessProbe": {**health, "periodSeconds": PERIOD_S, "timeoutSeconds": 5, "failureThreshold": 3},
            "livenessProbe": {**health, "periodSeconds": 30, "timeoutSeconds": 20, "failureThreshold": 10},
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ROUTER_S)]}}},
        }
    return found
