"""Work beside serving, in the batch queue, which borrows what is idle: quantize, compare, evaluate, gate.

Applied, they wait in a queue that is held; one is let run by moving it: `kubectl label job/NAME
kueue.x-k8s.io/queue-name=batch --overwrite`. Quantizing is parts of an Indexed Job, or a RayJob by option.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import door_name
from halfbyte.deploy.kueue import BATCH, HELD
from halfbyte.deploy.objects import (
    PRIORITY_LABEL,
    QUEUE_LABEL,
    Document,
    labels,
    locked_down,
    metadata,
    pod_security,
    scratch,
)
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.rayjob import RAY, SHARED_MEMORY_GIB, ray_job

BATCH_COMPONENT = "batch"
PARTS = 4
WORK = "/jobs"
CLAIM = "halfbyte-work"
ROOM = 6
"""Of the claim, in sizes of the served weights: a 16-bit source is nearly four of them, and two results."""


def jobs(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    yield _claim(platform, served)
    for one in served:
        here, source = f"{WORK}/{one.name}", f"{WORK}/{one.name}-source"
        made = f"{WORK}/{one.name}-next"
        compare = ["compare", source, here, "--data", f"{WORK}/data.jsonl", "--work", f"{WORK}/runs/compare"]
        evaluate = ["evaluate", "--suite", f"{WORK}/suite.jsonl", "--work", f"{WORK}/runs/evaluate"]
        evaluate += ["--candidate", f"http://{door_name(one)}:80/v1#{one.name}"]
        if platform.options.quantize == "ray-job":
            yield _on_ray(platform, one, ["quantize", source, made])
        else:
            yield _job(platform, one, "quantize", ["quantize", source, made], parts=PARTS)
            yield _job(platform, one, "finish", ["quantize", source, made, "--finish"])
        yield _job(platform, one, "compare", compare)
        yield _job(platform, one, "evaluate", evaluate)
        yield _job(platform, one, "gate", ["gate", here, "--depth", "full"])


def _claim(platform: Platform, served: Sequence[Served]) -> Document:
    """Where sources, data and results lie: yours to fill."""
    gib = max(1, ROOM * sum(one.bytes for one in served) >> 30)
    spec: Document = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": f"{gib}Gi"}}}
    if platform.weights.storage_class is not None:
        spec["storageClassName"] = platform.weights.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(CLAIM, platform.namespace, labels(CLAIM, BATCH_COMPONENT)),
        "spec": spec,
    }


def _job(platform: Platform, one: Served, verb: str, words: list[str], parts: int = 1) -> Document:
    """parts: of an Indexed Job, whose pods share the shards by leases; JOB_COMPLETION_INDEX is their number."""
    name = f"{one.object}-{verb}"
    marks = labels(name, BATCH_COMPONENT, one.name)
    arguments = [*words, *(["--part", f"/{parts}"] if parts > 1 else [])]
    pod = {"restartPolicy": "Never"} | _pod(platform.images.halfbyte, verb, ["halfbyte", *arguments])
    spec: Document = {"suspend": True, "backoffLimit": 6}
    if parts > 1:
        spec |= {"completionMode": "Indexed", "completions": parts, "parallelism": parts}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, platform.namespace, marks | {QUEUE_LABEL: HELD, PRIORITY_LABEL: BATCH}),
        "spec": spec | {"template": {"metadata": {"labels": marks}, "spec": pod}},
    }


def _on_ray(platform: Platform, one: Served, words: list[str]) -> Document:
    image = platform.images.ray
    assert image is not None  # the platform was refused without
    pod = _pod(image, RAY, None, shared_memory_gib=SHARED_MEMORY_GIB)
    return ray_job(platform, f"{one.object}-quantize", one.name, pod, ["halfbyte", *words, "--ray", "auto"], PARTS)


def _pod(image: str, name: str, command: list[str] | None, shared_memory_gib: int | None = None) -> Document:
    """Spec of a pod that works in the claim. command: None where someone else says it."""
    volumes, mounts, home = scratch(shared_memory_gib=shared_memory_gib)
    container: Document = {
        "name": name,
        "image": image,
        **({} if command is None else {"command": command}),
        "env": home,
        "resources": {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {"memory": "32Gi"}},
        "securityContext": locked_down(),
        "volumeMounts": [*mounts, {"name": "work", "mountPath": WORK}],
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [*volumes, {"name": "work", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
