"""Kueue. Sources: the CEL rules of its definitions, and what its webhooks refuse (0.19, pkg/webhooks)."""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import twice
from halfbyte.deploy.kinds.scalars import amount

Document = dict[str, Any]

HOSTNAME = "kubernetes.io/hostname"
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def cluster_queue(document: Document) -> Iterator[str]:
    spec = document.get("spec") or {}
    yield from _quotas(spec, "cohortName")
    preemption = spec.get("preemption") or {}
    borrowing = (preemption.get("borrowWithinCohort") or {}).get("policy", "Never")
    if borrowing != "Never" and preemption.get("reclaimWithinCohort", "Never") == "Never":
        yield f"spec.preemption.borrowWithinCohort.policy: {borrowing!r} needs reclaimWithinCohort other than 'Never'"
    ways = spec.get("flavorFungibility") or {}
    both = {ways.get("whenCanBorrow"), ways.get("whenCanPreempt")}
    if ways.get("preference") is not None and both != {"TryNextFlavor"}:
        yield "spec.flavorFungibility.preference: only with whenCanBorrow and whenCanPreempt both 'TryNextFlavor'"
    if spec.get("namespaceSelector") is None:
        yield "spec.namespaceSelector: absent, so work of no namespace is admitted; {} means all"


def cohort(document: Document) -> Iterator[str]:
    spec = document.get("spec") or {}
    yield from _quotas(spec, "parentName")
    if spec.get("parentName") == document["metadata"]["name"]:
        yield "spec.parentName: is the cohort itself"


def _quotas(spec: Document, parent: str) -> Iterator[str]:
    """parent: the field that names whom quota is borrowed from."""
    groups = spec.get("resourceGroups") or ()
    yield from twice("spec.resourceGroups", (name for group in groups for name in group["coveredResources"]))
    yield from twice("spec.resourceGroups", (flavor["name"] for group in groups for flavor in group["flavors"]))
    for number, group in enumerate(groups):
        for flavor in group["flavors"]:
            field = f"spec.resourceGroups.{number}.flavors.{flavor['name']}"
            names = [resource["name"] for resource in flavor["resources"]]
            if names != group["coveredResources"]:
                yield f"{field}: resources {names} are not coveredResources {group['coveredResources']}, in that order"
            for resource in flavor["resources"]:
                yield from _quota(f"{field}.{resource['name']}", resource, parent if not spec.get(parent) else None)


def _quota(field: str, resource: Document, missing: str | None) -> Iterator[str]:
    for key in ("nominalQuota", "borrowingLimit", "lendingLimit"):
        if resource.get(key) is not None and amount(resource[key]) < 0:
            yield f"{field}: {key} {resource[key]} is negative"
    for key in ("borrowingLimit", "lendingLimit"):
        if resource.get(key) is not None and missing is not None:
            yield f"{field}: {key} {resource[key]} without {missing}"
    if resource.get("lendingLimit") is not None and amount(resource["lendingLimit"]) > amount(resource["nominalQuota"]):
        yield f"{field}: lendingLimit {resource['lendingLimit']} is more than nominalQuota {resource['nominalQuota']}"


def flavor(document: Document) -> Iterator[str]:
    spec = document.get("spec") or {}
    if spec.get("topologyName") and not spec.get("nodeLabels"):
        yield "spec.topologyName: needs at least one of nodeLabels"
    for number, taint in enumerate(spec.get("nodeTaints") or ()):
        if taint.get("effect") not in TAINT_EFFECTS:
            yield f"spec.nodeTaints.{number}.effect: {taint.get('effect')!r}, wanted one of {', '.join(TAINT_EFFECTS)}"
    for number, toleration in enumerate(spec.get("tolerations") or ()):
        yield from tolerance(f"spec.tolerations.{number}", toleration)


def tolerance(field: str, toleration: Document) -> Iterator[str]:
    operator, effect = toleration.get("operator", "Equal"), toleration.get("effect")
    if operator not in ("Exists", "Equal", "Lt", "Gt"):
        yield f"{field}.operator: {operator!r}, wanted Exists or Equal"
    if operator == "Exists" and toleration.get("value"):
        yield f"{field}.value: {toleration['value']!r} with operator Exists, which looks at the key alone"
    if not toleration.get("key") and operator != "Exists":
        yield f"{field}.key: absent, which needs operator Exists"
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield f"{field}.tolerationSeconds: only with effect NoExecute ({effect!r})"
    if effect is not None and effect not in TAINT_EFFECTS:
        yield f"{field}.effect: {effect!r}, wanted one of {', '.join(TAINT_EFFECTS)}"


def topology(document: Document) -> Iterator[str]:
    labels = [level["nodeLabel"] for level in (document.get("spec") or {}).get("levels", ())]
    if not labels:
        yield "spec.levels: absent"
    yield from twice("spec.levels", labels)
    if HOSTNAME in labels[:-1]:
        yield f"spec.levels: {HOSTNAME} can only be the last, finest level"
