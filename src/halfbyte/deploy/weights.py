"""The weights: a claim that a Job fills and checks file by file, or an OCI image that the node brings."""

import json
from collections.abc import Iterator

from halfbyte.deploy.facts import MODELS, Served
from halfbyte.deploy.objects import Document, labels, locked_down, metadata, pod_security, scratch
from halfbyte.deploy.platform import Platform

HASHES = "SHA256.json"
ROOM = 1.05
"""Of the claim, over the bytes of the weights: side files and the file system's own."""
JOB_DEADLINE_S = 6 * 3600


def weights(platform: Platform, one: Served) -> Iterator[Document]:
    if one.model.weights_image is not None:
        return
    name, namespace = f"{one.object}-weights", platform.namespace
    marks = labels(name, "weights", one.name)
    claim: Document = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": f"{max(1, -(-int(one.bytes * ROOM) // (1 << 30)))}Gi"}},
    }
    if platform.weights.storage_class is not None:
        claim["storageClassName"] = platform.weights.storage_class
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name, namespace, marks),
        "spec": claim,
    }
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(name, namespace, marks),
        "data": {HASHES: json.dumps(one.sha256, indent=1) + "\n"},
    }
    yield _job(platform, one, name, marks)


def volume(platform: Platform, one: Served) -> Document:
    """The weights in a pod that serves them."""
    if one.model.weights_image is not None:
        return {"name": "weights", "image": {"reference": one.model.weights_image, "pullPolicy": "IfNotPresent"}}
    return {"name": "weights", "persistentVolumeClaim": {"claimName": f"{one.object}-weights", "readOnly": True}}


def mount(platform: Platform, one: Served) -> Document:
    path = f"{MODELS}/{one.name}" if one.model.weights_image is not None else MODELS
    return {"name": "weights", "mountPath": path, "readOnly": True}


def _job(platform: Platform, one: Served, name: str, marks: dict[str, str]) -> Document:
    volumes, mounts, home = scratch()
    source = platform.weights.source.replace("{model}", one.name)
    command = ["halfbyte", "unbundle", source, f"{MODELS}/{one.name}"]
    container: Document = {
        "name": "download",
        "image": platform.images.halfbyte,
        "command": [*command, "--hashes", f"/etc/halfbyte/{HASHES}", "--verify"],
        "env": home,
        "resources": {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": locked_down(),
        "volumeMounts": [
            *mounts,
            {"name": "weights", "mountPath": MODELS},
            {"name": "hashes", "mountPath": "/etc/halfbyte", "readOnly": True},
        ],
    }
    pod: Document = {
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [
            *volumes,
            {"name": "weights", "persistentVolumeClaim": {"claimName": name}},
            {"name": "hashes", "configMap": {"name": name}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, platform.namespace, marks),
        "spec": {
            "backoffLimit": 20,
            "activeDeadlineSeconds": JOB_DEADLINE_S,
            "template": {"metadata": {"labels": marks}, "spec": pod},
        },
    }
