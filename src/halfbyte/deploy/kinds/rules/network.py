"""Services, routes to them, network policies and who may do what."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from halfbyte.deploy.kinds.rules.places import twice

Document = dict[str, Any]


def service(document: Document) -> Iterator[str]:
    spec, name = document["spec"], document["metadata"]["name"]
    if len(name) > 63 or "." in name or name[0].isdigit():
        yield "metadata.name: wanted a name of DNS: at most 63 letters, digits and '-', a letter first"
    ports = spec.get("ports") or ()
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield "spec.ports: empty"
    if len(ports) > 1 and not all(port.get("name") for port in ports):
        yield "spec.ports: each needs a name where there are several"
    yield from twice("spec.ports", (port["name"] for port in ports if port.get("name")))
    yield from twice("spec.ports", ((port["port"], port.get("protocol", "TCP")) for port in ports))
    for number, port in enumerate(ports):
        if isinstance(port.get("targetPort"), int) and not 1 <= port["targetPort"] <= 65535:
            yield f"spec.ports.{number}.targetPort: {port['targetPort']}, wanted 1 to 65535"


def policy(document: Document) -> Iterator[str]:
    spec = document["spec"]
    for direction in ("ingress", "egress"):
        types = spec.get("policyTypes")
        if spec.get(direction) and types is not None and direction.capitalize() not in types:
            yield f"spec.{direction}: has rules, and policyTypes says {types}: they would be ignored"
        for number, rule in enumerate(spec.get(direction) or ()):
            for peer in rule.get("from" if direction == "ingress" else "to") or ():
                yield from _peer(f"spec.{direction}.{number}", peer)


def _peer(field: str, peer: Document) -> Iterator[str]:
    if not peer:
        yield f"{field}: a peer that names nobody"
    block = peer.get("ipBlock") or {}
    for cidr in (block.get("cidr"), *(block.get("except") or ())):
        if cidr is not None and not _is_network(cidr):
            yield f"{field}.ipBlock: {cidr!r} is no network"


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return "/" in text


def route(document: Document) -> Iterator[str]:
    for number, rule in enumerate((document["spec"] or {}).get("rules") or ()):
        for match in rule.get("matches") or ():
            path = match.get("path") or {}
            if path.get("type") != "RegularExpression" and not path.get("value", "/").startswith("/"):
                yield f"spec.rules.{number}.matches.path: {path['value']!r}, wanted a path that begins with '/'"
        for backend in rule.get("backendRefs") or ():
            if backend.get("kind", "Service") == "Service" and backend.get("port") is None:
                yield f"spec.rules.{number}.backendRefs: port of Service {backend['name']!r}: absent"


def inference_pool(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if not spec["selector"].get("matchLabels"):
        yield "spec.selector.matchLabels: empty"
    picker = spec.get("endpointPickerRef") or {}
    if picker.get("kind", "Service") == "Service" and picker.get("port") is None:
        yield "spec.endpointPickerRef.port: absent, which a Service needs"


def role_binding(document: Document) -> Iterator[str]:
    for number, subject in enumerate(document.get("subjects") or ()):
        if subject["kind"] == "ServiceAccount" and not subject.get("namespace"):
            yield f"subjects.{number}.namespace: absent, which a ServiceAccount needs"
