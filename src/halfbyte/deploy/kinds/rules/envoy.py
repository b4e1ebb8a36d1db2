"""Envoy AI Gateway. Sources: the CEL rules of its definitions (1.1) and of Envoy Gateway's Backend (1.8)."""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import twice

Document = dict[str, Any]

POOL = ("inference.networking.k8s.io", "InferencePool")
RESERVED = "route-not-found"


def ai_route(document: Document) -> Iterator[str]:
    spec = document["spec"]
    for number, parent in enumerate(spec.get("parentRefs") or ()):
        if parent.get("kind", "Gateway") != "Gateway":
            yield f"spec.parentRefs.{number}.kind: {parent['kind']!r}, wanted Gateway"
    yield from twice("spec.rules", (rule["name"] for rule in spec["rules"] if rule.get("name")))
    for number, rule in enumerate(spec["rules"]):
        if rule.get("name") == RESERVED:
            yield f"spec.rules.{number}.name: {RESERVED!r} is the gateway's own"
        yield from _backends(f"spec.rules.{number}.backendRefs", rule.get("backendRefs") or [])


def _backends(field: str, backends: list[Document]) -> Iterator[str]:
    others = [(one.get("group"), one.get("kind")) for one in backends if one.get("group") or one.get("kind")]
    for other in others:
        if other != POOL:
            yield f"{field}: {other[0]}/{other[1]}, wanted an AIServiceBackend (no group, no kind) or an InferencePool"
    if others and len(backends) > 1:
        yield f"{field}: an InferencePool stands alone in its rule"


def backend(document: Document) -> Iterator[str]:
    spec = document["spec"]
    endpoints = spec.get("endpoints") or ()
    if spec.get("type") == "DynamicResolver" and endpoints:
        yield "spec.endpoints: not with type DynamicResolver"
    if spec.get("type") != "DynamicResolver" and not endpoints:
        yield "spec.endpoints: absent, so it leads nowhere"
    for number, one in enumerate(endpoints):
        given = [key for key in ("fqdn", "ip", "unix") if one.get(key) is not None]
        if len(given) != 1:
            yield f"spec.endpoints.{number}: has {given or 'no address'}, wanted one of fqdn, ip and unix"
    if len({"fqdn" in one for one in endpoints}) > 1:
        yield "spec.endpoints: names and addresses are not mixed"
