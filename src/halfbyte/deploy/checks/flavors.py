"""Whether each flavor that a queue names can be used: there is quota of it, and the pods do not shut it out.

Kueue puts a flavor's labels into the pods that it admits, so pods of several flavors must name none of them themselves.
"""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.checks.documents import (
    WORKLOADS,
    Cluster,
    cluster_queue_of,
    quotas,
    shown,
    templates,
)
from halfbyte.deploy.checks.queues import most_of
from halfbyte.deploy.objects import GPU, Document

TOPOLOGY = ("kueue.x-k8s.io/podset-required-topology", "kueue.x-k8s.io/podset-preferred-topology")


def quota_there(cluster: Cluster) -> Iterator[str]:
    """A queue that may have nothing of a flavor, of its own or borrowed, never uses it."""
    for queue in cluster.of("ClusterQueue"):
        for flavor, rows in quotas(queue).items():
            if GPU in rows and most_of(cluster, queue, flavor, GPU) <= 0:
                cohort = (queue.get("spec") or {}).get("cohortName")
                where = "it is in no cohort" if cohort is None else f"its cohort {cohort} has none to lend"
                yield f"{shown(queue)}: flavor {flavor}: no quota of {GPU} here, and {where}"


def placement(cluster: Cluster) -> Iterator[str]:
    """Pods match the labels and levels of each flavor that their queue names."""
    for one in cluster.of(*WORKLOADS):
        queue = cluster_queue_of(cluster, one)
        for name in quotas(queue) if queue is not None else ():
            spec = (cluster.named("ResourceFlavor", name) or {}).get("spec") or {}
            for place, template, _ in templates(one):
                why = _shut_out(template, spec.get("nodeLabels") or {}, spec.get("topologyName"))
                if why is not None:
                    yield f"{shown(one)}: {place} {why}, so Kueue never uses flavor {name}"


def _shut_out(template: Document, labels: dict[str, str], topology: Any) -> str | None:
    """Labels that a flavor does not have are no matter of Kueue's."""
    pod = template.get("spec") or {}
    for key, value in (pod.get("nodeSelector") or {}).items():
        if key in labels and labels[key] != value:
            return f"has nodeSelector {key}={value}, the flavor {labels[key]}"
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = (required or {}).get("nodeSelectorTerms") or []
    if terms and not any(_matches(term, labels) for term in terms):
        return "has a nodeAffinity that no node of the flavor meets"
    marks = (template.get("metadata") or {}).get("annotations") or {}
    wanted = next((marks[key] for key in TOPOLOGY if key in marks), None)
    return f"asks for the topology {wanted}, and the flavor has none" if wanted and not topology else None


def _matches(term: Document, labels: dict[str, str]) -> bool:
    for row in term.get("matchExpressions") or []:
        key, values = row.get("key"), [str(value) for value in row.get("values") or []]
        if key not in labels:
            continue
        operator = row.get("operator")
        inside = labels[key] in values
        if (operator == "In" and not inside) or (operator == "NotIn" and inside) or operator == "DoesNotExist":
            return False
    return True
