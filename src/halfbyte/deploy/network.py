"""Who may talk to whom: the world to the doors, doors to routers and engines, Prometheus to all, nothing else.

Pods of a Ray cluster talk to each other on any port, and are given their work by KubeRay's operator.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import PORT, Served
from halfbyte.deploy.frontdoor import DOOR, DOOR_PORT, ROUTER, ROUTER_PORT, door_name
from halfbyte.deploy.objects import MODEL_LABEL, Document, labels, metadata, selector
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.rayjob import DASHBOARD_PORT, RAY
from halfbyte.deploy.serving import ENGINE


def network(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    scrape = _namespace(platform.cluster.monitoring_namespace)
    yield _policy(platform, "default-deny", {}, [])
    for one in served:
        door, router = selector(door_name(one), DOOR), selector(f"{one.object}-router", ROUTER)
        engine = selector(one.object, ENGINE)
        before = router if platform.options.router else door
        rules: list[Document] = [_from([_pods(before), scrape], PORT)]
        if one.nodes > 1:
            rules.append({"from": [_pods(engine)]})
        yield _policy(platform, one.object, engine, rules)
        if platform.options.router:
            yield _policy(platform, f"{one.object}-router", router, [_from([_pods(door), scrape], ROUTER_PORT)])
        outside = _namespace(platform.cluster.gateway_namespace)
        yield _policy(platform, door_name(one), door, [_from([outside, scrape], DOOR_PORT)])
        if platform.options.quantize == "ray-job":
            cluster, operator = _cluster(one), _namespace(platform.cluster.kuberay_namespace)
            rules = [{"from": [_pods(cluster)]}, _from([operator], DASHBOARD_PORT)]
            yield _policy(platform, f"{one.object}-ray", cluster, rules)


def _cluster(one: Served) -> dict[str, str]:
    """Labels of the pods that quantize a model on Ray."""
    return {"app.kubernetes.io/component": RAY, MODEL_LABEL: one.name}


def _pods(chosen: dict[str, str]) -> Document:
    return {"podSelector": {"matchLabels": chosen}}


def _namespace(name: str) -> Document:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _from(peers: Sequence[Document], port: int) -> Document:
    return {"from": list(peers), "ports": [{"port": port, "protocol": "TCP"}]}


def _policy(platform: Platform, name: str, chosen: dict[str, str], ingress: Sequence[Document]) -> Document:
    spec: Document = {"podSelector": {"matchLabels": chosen} if chosen else {}, "policyTypes": ["Ingress"]}
    if ingress:
        spec["ingress"] = list(ingress)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, platform.namespace, labels(name, "network")),
        "spec": spec,
    }
