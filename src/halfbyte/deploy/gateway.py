"""From outside to the doors, by option: a Gateway API route, an InferencePool of the engines behind one, or Envoy AI
Gateway's own objects."""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.envoy import ai_gateway
from halfbyte.deploy.facts import PORT, Served
from halfbyte.deploy.frontdoor import door_name
from halfbyte.deploy.objects import Document, labels, metadata, selector
from halfbyte.deploy.platform import Platform

HEADER = "x-model"


def gateway(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    if platform.options.gateway == "none":
        return
    if platform.options.gateway == "envoy-ai":
        yield from ai_gateway(platform, served)
        return
    yield _route(platform, served)
    if platform.options.gateway == "inference-pool":
        for one in served:
            yield _pool(platform, one)


def _route(platform: Platform, served: Sequence[Served]) -> Document:
    """One rule a model, by the header `x-model`; the first model is whoever names none. Answers take minutes."""
    rules: list[Document] = []
    for one in served:
        matches: list[Document] = [{"headers": [{"type": "Exact", "name": HEADER, "value": one.name}]}]
        if one is served[0]:
            matches.append({"path": {"type": "PathPrefix", "value": "/"}})
        rules.append(
            {
                "matches": matches,
                "backendRefs": [{"name": door_name(one), "port": 80}],
                "timeouts": {"request": "0s", "backendRequest": "0s"},
            }
        )
    parent = {"name": platform.options.gateway_name, "namespace": platform.cluster.gateway_namespace}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata("halfbyte", platform.namespace, labels("halfbyte", "gateway")),
        "spec": {"parentRefs": [parent], "rules": rules},
    }


def _pool(platform: Platform, one: Served) -> Document:
    """Its picker is deployed with the gateway, under this name."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": metadata(one.object, platform.namespace, labels(one.object, "gateway", one.name)),
        "spec": {
            "selector": {"matchLabels": selector(one.object, "engine")},
            "targetPorts": [{"number": PORT}],
            "endpointPickerRef": {"name": f"{one.object}-picker", "port": {"number": 9002}, "failureMode": "FailOpen"},
        },
    }
