"""KEDA. Sources: its definition's CEL rule, its Prometheus scaler (2.20) and the limits of autoscaling/v2."""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import twice
from halfbyte.deploy.kinds.scalars import amount

Document = dict[str, Any]

DEFAULT_MAX = 100
PROMETHEUS = ("serverAddress", "query", "threshold")
BY_UTILIZATION = ("cpu", "memory")
LONGEST_WINDOW, LONGEST_PERIOD = 3600, 1800


def scaled_object(document: Document) -> Iterator[str]:
    spec = document["spec"]
    least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", DEFAULT_MAX)
    if least > most:
        yield f"spec.minReplicaCount: {least} is more than maxReplicaCount ({most})"
    idle = spec.get("idleReplicaCount")
    if idle is not None and idle >= least:
        yield f"spec.idleReplicaCount: {idle}, wanted less than minReplicaCount ({least})"
    triggers = spec["triggers"]
    if not triggers:
        yield "spec.triggers: empty"
    yield from twice("spec.triggers", (trigger["name"] for trigger in triggers if trigger.get("name")))
    for number, trigger in enumerate(triggers):
        yield from _trigger(f"spec.triggers.{number}", trigger)
    if spec.get("fallback") is not None:
        yield from _fallback(spec["fallback"], most, triggers)
    configured = ((spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}).get("behavior") or {}
    for direction, behavior in configured.items():
        yield from _behavior(f"spec.advanced.horizontalPodAutoscalerConfig.behavior.{direction}", behavior or {})


def _trigger(field: str, trigger: Document) -> Iterator[str]:
    if trigger["type"] != "prometheus":
        return
    metadata = trigger.get("metadata") or {}
    for key in PROMETHEUS:
        if not metadata.get(key):
            yield f"{field}.metadata.{key}: absent"
    for key in ("threshold", "activationThreshold"):
        if metadata.get(key) and not _is_number(metadata[key]):
            yield f"{field}.metadata.{key}: {metadata[key]!r} is no number"
    if metadata.get("ignoreNullValues", "true") not in ("true", "false"):
        yield f"{field}.metadata.ignoreNullValues: {metadata['ignoreNullValues']!r}, wanted 'true' or 'false'"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fallback(fallback: Document, most: int, triggers: list[Document]) -> Iterator[str]:
    if fallback["failureThreshold"] < 1:
        yield f"spec.fallback.failureThreshold: {fallback['failureThreshold']}, wanted at least 1"
    if not 0 <= fallback["replicas"] <= most:
        yield f"spec.fallback.replicas: {fallback['replicas']}, wanted 0 to maxReplicaCount ({most})"
    if all(trigger["type"] in BY_UTILIZATION for trigger in triggers):
        yield "spec.fallback: does not work with cpu and memory triggers alone"


def _behavior(field: str, behavior: Document) -> Iterator[str]:
    window = behavior.get("stabilizationWindowSeconds")
    if window is not None and not 0 <= window <= LONGEST_WINDOW:
        yield f"{field}.stabilizationWindowSeconds: {window}, wanted 0 to {LONGEST_WINDOW}"
    for number, policy in enumerate(behavior.get("policies") or ()):
        if amount(policy["value"]) < 1:
            yield f"{field}.policies.{number}.value: {policy['value']}, wanted at least 1"
        if not 1 <= policy["periodSeconds"] <= LONGEST_PERIOD:
            yield f"{field}.policies.{number}.periodSeconds: {policy['periodSeconds']}, wanted 1 to {LONGEST_PERIOD}"
