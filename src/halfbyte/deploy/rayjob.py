"""Quantizing as a RayJob of KubeRay: a cluster for the length of one run, whose head splits the work and joins it.

`quantize --ray auto` is the driver on the head, which takes no part itself; each worker is one machine and does one.
KubeRay's operator submits it over HTTP, so there is no third kind of pod to lock down and to find quota for. Without
Ray's autoscaler no pod asks the API for anything: there is no ServiceAccount and no Role.
"""

import shlex
from collections.abc import Sequence

from halfbyte.deploy.kueue import BATCH, HELD
from halfbyte.deploy.objects import PRIORITY_LABEL, QUEUE_LABEL, Document, labels, metadata
from halfbyte.deploy.platform import Platform

RAY = "ray"
"""Component of the pods of a Ray cluster."""
NAME_LABEL = "app.kubernetes.io/name"
GCS_PORT, DASHBOARD_PORT, AGENT_PORT = 6379, 8265, 52365
SHARED_MEMORY_GIB = 2
OBJECT_STORE_BYTES = 1_000_000_000
"""Within /dev/shm. Tasks here pass names of files, and no tensors."""
TRIES = 2
"""Beyond the first, each with a new cluster: what was written stays, and is gone on with."""


def ray_job(platform: Platform, name: str, model: str, pod: Document, words: Sequence[str], workers: int) -> Document:
    """pod: spec of a pod with one container, which is given its name, ports and probes here. words: the driver."""
    marks = labels(name, RAY, model)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(name, platform.namespace, marks | {QUEUE_LABEL: HELD, PRIORITY_LABEL: BATCH}),
        "spec": {
            "suspend": True,
            "entrypoint": shlex.join(words),
            "submissionMode": "HTTPMode",
            "shutdownAfterJobFinishes": True,
            "backoffLimit": TRIES,
            "rayClusterSpec": {
                "enableInTreeAutoscaling": False,
                "headGroupSpec": {
                    "rayStartParams": _parameters("0"),
                    "template": _template(marks, pod, "head", {"gcs": GCS_PORT, "dashboard": DASHBOARD_PORT}),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "parts",
                        "replicas": workers,
                        "minReplicas": workers,
                        "maxReplicas": workers,
                        "rayStartParams": _parameters(pod["containers"][0]["resources"]["requests"]["cpu"]),
                        "template": _template(marks, pod, "worker", {}),
                    }
                ],
            },
        },
    }


def _parameters(cpus: str) -> dict[str, str]:
    return {"num-cpus": cpus, "object-store-memory": str(OBJECT_STORE_BYTES)}


def _template(marks: dict[str, str], pod: Document, role: str, ports: dict[str, int]) -> Document:
    """Without the name among its labels: KubeRay gives its pods one of its own, and finds the head by it.

    Its probes would call wget, which a small image lacks; these ask the same agent for the same.
    """
    probe: Document = {"httpGet": {"path": "/api/local_raylet_healthz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    container: Document = {
        **pod["containers"][0],
        "name": f"ray-{role}",
        "readinessProbe": {**probe, "initialDelaySeconds": 10, "periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": {**probe, "initialDelaySeconds": 60, "periodSeconds": 10, "failureThreshold": 30},
    }
    if ports:
        container["ports"] = [{"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()]
    own = {key: value for key, value in marks.items() if key != NAME_LABEL}
    return {"metadata": {"labels": own}, "spec": {**pod, "containers": [container]}}
