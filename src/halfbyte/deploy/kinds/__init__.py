"""The kinds of objects in a folder of manifests, each with the model that its file must fit.

Custom resources: `generated`, written from the published definitions by tests/deploy/record_kinds.py. Kinds of
Kubernetes itself: `core`. Ray's: `ray`, Envoy's: `envoy`. A model is imported when an object of its kind is met.
"""

from importlib import import_module
from typing import Any

from pydantic import BaseModel, ValidationError

from halfbyte.validation import SHOWN, first_fault, nearest

_MODULES: dict[str, dict[str, tuple[str, ...]]] = {
    "generated": {
        "kueue.x-k8s.io/v1beta2": (
            "ResourceFlavor",
            "ClusterQueue",
            "Cohort",
            "LocalQueue",
            "WorkloadPriorityClass",
            "Topology",
        ),
        "leaderworkerset.x-k8s.io/v1": ("LeaderWorkerSet",),
        "keda.sh/v1alpha1": ("ScaledObject",),
        "monitoring.coreos.com/v1": ("PrometheusRule", "ServiceMonitor", "PodMonitor"),
        "gateway.networking.k8s.io/v1": ("HTTPRoute",),
        "inference.networking.k8s.io/v1": ("InferencePool",),
        "serving.kserve.io/v1alpha2": ("LLMInferenceService",),
    },
    "core": {
        "v1": ("Namespace", "Service", "ServiceAccount", "ConfigMap", "Secret", "PersistentVolumeClaim"),
        "apps/v1": ("Deployment",),
        "batch/v1": ("Job", "CronJob"),
        "policy/v1": ("PodDisruptionBudget",),
        "networking.k8s.io/v1": ("NetworkPolicy",),
        "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    },
    "ray": {"ray.io/v1": ("RayJob",)},
    "envoy": {
        "aigateway.envoyproxy.io/v1beta1": ("AIGatewayRoute", "AIServiceBackend"),
        "gateway.envoyproxy.io/v1alpha1": ("Backend",),
    },
}

KINDS: dict[tuple[str, str], str] = {
    (version, kind): f"{__name__}.{place}.{kind.lower()}" if place == "generated" else f"{__name__}.{place}"
    for place, versions in _MODULES.items()
    for version, kinds in versions.items()
    for kind in kinds
}
"""(apiVersion, kind) -> the module with its model."""

BUILT_IN = ("", "apps", "batch", "policy", "networking.k8s.io", "rbac.authorization.k8s.io")
FORMER = {"extensions": BUILT_IN, "inference.networking.x-k8s.io": ("inference.networking.k8s.io",)}
"""Group that is no more -> groups where its kinds are now."""


def model_for(api_version: str, kind: str) -> type[BaseModel] | None:
    """None for a kind that is not known here."""
    module = KINDS.get((api_version, kind))
    found: type[BaseModel] | None = getattr(import_module(module), kind) if module is not None else None
    return found


def check_shape(document: dict[str, Any]) -> str | None:
    """The first fault of an object's shape in one line: kind, name, field, value seen. None if there is none.

    An object of a kind that is not known here passes, unless its apiVersion shows that a known one was meant.
    """
    faulty = _headless(document)
    if faulty:
        return faulty
    api_version, kind = document["apiVersion"], document["kind"]
    model = model_for(api_version, kind)
    if model is None:
        meant = _meant(api_version, kind)
        return meant and f"{said(document)}: {meant}"
    try:
        model.model_validate(document)
    except ValidationError as error:
        fault = first_fault(error, model)
        return f"{said(document)}: {fault.message}" + (f"; {fault.hint}" if fault.hint else "")
    return None


def said(document: dict[str, Any]) -> str:
    """An object as messages call it: `ClusterQueue serving-b200`."""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{str(document.get('kind'))[:SHOWN]} {str(name)[:SHOWN]}"


def _headless(document: dict[str, Any]) -> str | None:
    """What is wrong with the fields that every object has."""
    if not isinstance(document, dict):
        return f"no object of Kubernetes ({str(document)[:SHOWN]!r})"
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key), str):
            return f"{said(document)}: {key}: wanted a string ({str(document.get(key))[:SHOWN]!r})"
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return f"{said(document)}: metadata.name: wanted a name ({str(metadata)[:SHOWN]!r})"
    return None


def _meant(api_version: str, kind: str) -> str | None:
    """The known kind that was meant, as a fault; None for a kind of someone else."""
    group = _group(api_version)
    groups = FORMER.get(group, BUILT_IN if group in BUILT_IN else (group,))
    near = {known: version for version, known in KINDS if _group(version) in groups}
    if kind in near:
        return f"apiVersion: wanted {near[kind]!r} ({api_version[:SHOWN]!r})"
    hint = nearest(kind, tuple(near)) if group not in FORMER else None
    misspelt = hint is not None and _all_but_spelling(kind, tuple(near))
    return f"kind: unknown in {api_version[:SHOWN]!r} ({kind[:SHOWN]!r}); {hint}" if misspelt else None


def _all_but_spelling(kind: str, known: tuple[str, ...]) -> bool:
    """A kind that differs from a known one by case or two letters: `Clusterqueue`. Not `StatefulSet`, a real one."""
    from difflib import get_close_matches

    return bool(get_close_matches(kind.lower(), [one.lower() for one in known], n=1, cutoff=0.86))


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]
