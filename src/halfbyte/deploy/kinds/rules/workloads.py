"""Deployments, LeaderWorkerSets, Jobs and disruption budgets."""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import templates

Document = dict[str, Any]

QUEUE_LABELS = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
LONGEST_SET, LONGEST_QUEUED_SET = 51, 39
"""Characters of a LeaderWorkerSet's name: alone, and where Kueue puts it into a label."""


def deployment(document: Document) -> Iterator[str]:
    spec = document["spec"]
    wanted = spec["selector"].get("matchLabels") or {}
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not wanted and not spec["selector"].get("matchExpressions"):
        yield "spec.selector: empty"
    for key, value in wanted.items():
        if labels.get(key) != value:
            yield f"spec.selector.matchLabels: {key}={value} is not what the template has ({labels.get(key)!r})"
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "Recreate" and rolling:
        yield "spec.strategy.rollingUpdate: not with type Recreate"
    yield from _standstill("spec.strategy.rollingUpdate", rolling)
    deadline, ready = spec.get("progressDeadlineSeconds", 600), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        yield f"spec.progressDeadlineSeconds: {deadline}, wanted more than minReadySeconds ({ready})"
    yield from _restarts(document, ("Always",))


def _standstill(field: str, rolling: Document) -> Iterator[str]:
    if {rolling.get("maxSurge"), rolling.get("maxUnavailable")} <= {0, "0", "0%"}:
        yield f"{field}: maxSurge 0 and maxUnavailable 0: no pod could ever be replaced"


def _restarts(document: Document, allowed: tuple[str, ...]) -> Iterator[str]:
    for template in templates(document):
        policy = template.spec.get("restartPolicy", "Always")
        if policy not in allowed:
            yield f"{template.field}.spec.restartPolicy: {policy!r}, wanted {' or '.join(allowed)}"


def leader_worker_set(document: Document) -> Iterator[str]:
    spec, metadata = document.get("spec"), document["metadata"]
    if not spec:
        yield "spec: absent"
        return
    queued = QUEUE_LABELS[0] in (metadata.get("labels") or {})
    longest = LONGEST_QUEUED_SET if queued else LONGEST_SET
    if len(metadata["name"]) > longest:
        yield f"metadata.name: {len(metadata['name'])} characters, wanted at most {longest}"
    if (spec.get("replicas") or 0) < 0:
        yield f"spec.replicas: {spec['replicas']} is negative"
    yield from _group(spec["leaderWorkerTemplate"])
    for template in templates(document):
        for label in QUEUE_LABELS:
            if label in ((template.content.get("metadata") or {}).get("labels") or {}):
                yield f"{template.field}.metadata.labels: {label}: belongs on the LeaderWorkerSet alone"
    rolling = (spec.get("rolloutStrategy") or {}).get("rollingUpdateConfiguration") or {}
    yield from _standstill("spec.rolloutStrategy.rollingUpdateConfiguration", rolling)
    yield from _restarts(document, ("Always",))


def _group(workers: Document) -> Iterator[str]:
    size = workers.get("size", 1)
    if size < 1:
        yield f"spec.leaderWorkerTemplate.size: {size}, wanted at least 1"
    part = (workers.get("subGroupPolicy") or {}).get("subGroupSize")
    if part is not None and (part < 1 or part > size or (size % part and (size - 1) % part)):
        yield f"spec.leaderWorkerTemplate.subGroupPolicy.subGroupSize: {part} does not divide size {size} or {size - 1}"


def job(document: Document) -> Iterator[str]:
    yield from _job("spec", document["spec"])
    yield from _restarts(document, ("Never", "OnFailure"))


def cron_job(document: Document) -> Iterator[str]:
    spec = document["spec"]
    schedule = spec["schedule"]
    if not schedule.startswith("@") and len(schedule.split()) != 5:
        yield f"spec.schedule: {schedule!r}, wanted five fields"
    yield from _job("spec.jobTemplate.spec", spec["jobTemplate"]["spec"])
    yield from _restarts(document, ("Never", "OnFailure"))


def _job(field: str, spec: Document) -> Iterator[str]:
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and spec.get("completions") is None:
        yield f"{field}.completions: absent, which completionMode Indexed needs"
    for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if spec.get(key) is not None and not indexed:
            yield f"{field}.{key}: only with completionMode Indexed"


def disruption_budget(document: Document) -> Iterator[str]:
    spec = document["spec"]
    given = [key for key in ("minAvailable", "maxUnavailable") if spec.get(key) is not None]
    if len(given) != 1:
        yield f"spec: has {' and '.join(given) or 'no limit'}, wanted one of minAvailable and maxUnavailable"
    if not (spec["selector"].get("matchLabels") or spec["selector"].get("matchExpressions")):
        yield "spec.selector: empty, so it covers every pod of the namespace"
