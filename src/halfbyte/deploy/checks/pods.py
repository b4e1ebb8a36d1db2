"""Whether pods start, stop and are shut as they must: names, probes, drains, volumes, users, secrets."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.checks.documents import (
    SERVING,
    WORKLOADS,
    Cluster,
    cluster_queue_of,
    containers,
    gpus_of,
    name_of,
    shown,
    templates,
)
from halfbyte.deploy.objects import (
    ANSWER_ANNOTATION,
    COLD_START_ANNOTATION,
    READY_TIMEOUT_ANNOTATION,
    Document,
)

LWS_NAME = 39


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
        queue = cluster_queue_of(cluster, one)
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
