"""What all manifests share: names, labels, and containers that may do little."""

from typing import Any

Document = dict[str, Any]
"""One Kubernetes object, as it is written."""

DOMAIN = "halfbyte.dev"
MODEL_LABEL = f"{DOMAIN}/model"
"""The label that OpenCost is told to read as INFERENCE_MODEL_LABEL."""
SHARED_LABEL = f"{DOMAIN}/shared"
GATE_ANNOTATION = f"{DOMAIN}/gate"
FINGERPRINT_ANNOTATION = f"{DOMAIN}/checkpoint-fingerprint"
COLD_START_ANNOTATION = f"{DOMAIN}/cold-start-seconds"
READY_TIMEOUT_ANNOTATION = f"{DOMAIN}/wait-for-pods-ready-seconds"
ANSWER_ANNOTATION = f"{DOMAIN}/p99-answer-seconds"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
GPU = "nvidia.com/gpu"
USER = 10001


def labels(name: str, component: str, model: str | None = None) -> dict[str, str]:
    """model: what is served; None for what several share."""
    found = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "halfbyte",
        "app.kubernetes.io/managed-by": "halfbyte",
    }
    return found | ({MODEL_LABEL: model} if model is not None else {SHARED_LABEL: "true"})


def selector(name: str, component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/component": component}


def metadata(
    name: str,
    namespace: str | None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Document:
    """namespace: None for what belongs to the whole cluster."""
    found: Document = {"name": name}
    if namespace is not None:
        found["namespace"] = namespace
    if labels:
        found["labels"] = labels
    if annotations:
        found["annotations"] = annotations
    return found


def locked_down() -> Document:
    """securityContext of every container."""
    return {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> Document:
    """securityContext of every pod. The group owns the volumes that it writes to."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def scratch(*, shared_memory_gib: int | None = None) -> tuple[list[Document], list[Document], list[Document]]:
    """Volumes, mounts and variables of a container whose root cannot be written: its caches and /tmp.

    shared_memory_gib: of /dev/shm, where ranks of one server talk.
    """
    volumes: list[Document] = [{"name": "scratch", "emptyDir": {}}]
    mounts: list[Document] = [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},
    ]
    if shared_memory_gib is not None:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared_memory_gib}Gi"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    home = [{"name": "HOME", "value": "/scratch"}, {"name": "XDG_CACHE_HOME", "value": "/scratch/cache"}]
    return volumes, mounts, home


def disruption_budget(name: str, namespace: str, component: str) -> Document:
    """One pod at a time; for two and more, as with one it would block every drain of a node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, namespace, labels(name, component)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(name, component)}},
    }


def service(name: str, namespace: str, component: str, port: int, target: int, **more: str) -> Document:
    """more: labels that its pods have too."""
    chosen = selector(name, component) | more
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, labels(name, component)),
        "spec": {
            "selector": chosen,
            "ports": [{"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}],
        },
    }
