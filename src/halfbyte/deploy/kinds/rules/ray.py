"""RayJobs. Sources: what KubeRay 1.7 refuses (controllers/ray/utils/validation.go), and Kueue's webhook of the kind.

Kueue 0.17, the oldest that we name, counts at most 8 sets of pods in a workload; 0.19 counts 18.
"""

import re
from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import templates, twice
from halfbyte.deploy.kinds.rules.workloads import QUEUE_LABELS

Document = dict[str, Any]

LONGEST_NAME = 47
"""Of a RayJob: its cluster, pods and service are called after it."""
SETS_OF_PODS = 8
HEAD = "head"
ELASTIC = "kueue.x-k8s.io/elastic-job"


def ray_job(document: Document) -> Iterator[str]:
    spec, metadata = document["spec"], document["metadata"]
    name, queued = metadata["name"], QUEUE_LABELS[0] in (metadata.get("labels") or {})
    if len(name) > LONGEST_NAME:
        yield f"metadata.name: {len(name)} characters, wanted at most {LONGEST_NAME}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"metadata.name: {name[:80]!r}, wanted a letter first, then letters, digits and dashes"
    own, other = spec.get("rayClusterSpec"), spec.get("clusterSelector")
    if not own and not other:
        yield "spec.rayClusterSpec: absent, and no clusterSelector"
    if not spec.get("shutdownAfterJobFinishes") and (queued or spec.get("suspend")):
        yield "spec.shutdownAfterJobFinishes: wanted true: a cluster that stays keeps its quota"
    yield from _submission(spec)
    if own:
        yield from _groups(own)
    if queued:
        yield from _queued(metadata, spec)
    for template in templates(document):
        for label in QUEUE_LABELS:
            if label in ((template.content.get("metadata") or {}).get("labels") or {}):
                yield f"{template.field}.metadata.labels: {label}: belongs on the RayJob alone"


def _submission(spec: Document) -> Iterator[str]:
    mode = spec.get("submissionMode") or "K8sJobMode"
    if mode != "InteractiveMode" and not (spec.get("entrypoint") or "").strip():
        yield "spec.entrypoint: absent, so there is nothing to run"
    if mode in ("HTTPMode", "SidecarMode") and spec.get("submitterPodTemplate"):
        yield f"spec.submitterPodTemplate: not with submissionMode {mode}"
    if spec.get("clusterSelector") and spec.get("backoffLimit"):
        yield "spec.backoffLimit: not with clusterSelector: each try makes a cluster"
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "spec.backoffLimit: not with submissionMode InteractiveMode"


def _groups(cluster: Document) -> Iterator[str]:
    groups = cluster.get("workerGroupSpecs") or ()
    field = "spec.rayClusterSpec.workerGroupSpecs"
    yield from twice(field, (group["groupName"].lower() for group in groups))
    for number, group in enumerate(groups):
        least, most, now = (group.get(key) for key in ("minReplicas", "maxReplicas", "replicas"))
        if most is not None and (least or 0) > most:
            yield f"{field}.{number}: minReplicas {least} is more than maxReplicas {most}"
        elif now is not None and (now < (least or 0) or (most is not None and now > most)):
            yield f"{field}.{number}.replicas: {now}, wanted {least or 0} to {'any' if most is None else most}"
        if group["groupName"] == HEAD:
            yield f"{field}.{number}.groupName: {HEAD!r} is the head's own"


def _queued(metadata: Document, spec: Document) -> Iterator[str]:
    """Under Kueue alone."""
    if spec.get("clusterSelector"):
        yield "spec.clusterSelector: Kueue queues no job on a cluster that is there already"
    cluster = spec.get("rayClusterSpec") or {}
    elastic = (metadata.get("annotations") or {}).get(ELASTIC) == "true"
    if cluster.get("enableInTreeAutoscaling") and not elastic:
        yield "spec.rayClusterSpec.enableInTreeAutoscaling: wanted false: Kueue has reserved what the cluster may hold"
    others = 2 if (spec.get("submissionMode") or "K8sJobMode") == "K8sJobMode" else 1
    groups = len(cluster.get("workerGroupSpecs") or ())
    if groups > SETS_OF_PODS - others:
        yield f"spec.rayClusterSpec.workerGroupSpecs: {groups} groups, Kueue counts at most {SETS_OF_PODS - others}"
