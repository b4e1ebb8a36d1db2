"""Work beside serving, in the batch queue, which borrows what is idle: quantize, compare, evaluate, gate.

Applied, they wait in a queue that is held; one is let run by moving it: `kubectl label job/NAME
kueue.x-k8s.io/queue-name=batch --overwrite`.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import MODELS, Served
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

BATCH_COMPONENT = "batch"
PARTS = 4


def jobs(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    for one in served:
        here, source = f"{MODELS}/{one.name}", f"{MODELS}/source"
        made = f"{MODELS}/{one.name}-next"
        compare = ["compare", source, here, "--data", f"{MODELS}/data.jsonl", "--work", f"{MODELS}/work/compare"]
        evaluate = ["evaluate", "--suite", f"{MODELS}/suite.jsonl", "--work", f"{MODELS}/work/evaluate"]
        evaluate += ["--candidate", f"http://{door_name(one)}:80/v1#{one.name}"]
        yield _job(platform, one, "quantize", ["quantize", source, made], parts=PARTS)
        yield _job(platform, one, "compare", compare)
        yield _job(platform, one, "evaluate", evaluate)
        yield _job(platform, one, "gate", ["gate", here, "--depth", "full"])


def _job(platform: Platform, one: Served, verb: str, words: list[str], parts: int = 1) -> Document:
    """parts: of an Indexed Job, whose pods share the shards by leases."""
    name = f"{one.object}-{verb}"
    marks = labels(name, BATCH_COMPONENT, one.name)
    volumes, mounts, home = scratch()
    arguments = [*words, *(["--part", f"$(JOB_COMPLETION_INDEX)/{parts}"] if parts > 1 else [])]
    container: Document = {
        "name": verb,
        "image": platform.images.halfbyte,
        "command": ["halfbyte", *arguments],
        "env": home,
        "resources": {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {"memory": "32Gi"}},
        "securityContext": locked_down(),
        "volumeMounts": [*mounts, {"name": "weights", "mountPath": MODELS}],
    }
    pod: Document = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [*volumes, {"name": "weights", "persistentVolumeClaim": {"claimName": f"{one.object}-weights"}}],
    }
    spec: Document = {"suspend": True, "backoffLimit": 6}
    if parts > 1:
        spec |= {"completionMode": "Indexed", "completions": parts, "parallelism": parts}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, platform.namespace, marks | {QUEUE_LABEL: HELD, PRIORITY_LABEL: BATCH}),
        "spec": spec | {"template": {"metadata": {"labels": marks}, "spec": pod}},
    }
