"""Envoy AI Gateway before the doors: it finds the model in the request's body, so that no header has to name it.

Keys, limits and money stay the doors': the gateway hands on what it gets. It speaks plain HTTP to them, inside the
cluster, so there is no TLS to configure towards them.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import door_name
from halfbyte.deploy.objects import Document, labels, metadata
from halfbyte.deploy.platform import Platform

API = "aigateway.envoyproxy.io/v1beta1"
GATEWAY_API = "gateway.networking.k8s.io"
ENVOY = "gateway.envoyproxy.io"
MODEL_HEADER = "x-ai-eg-model"
"""Which the gateway sets from the body before it chooses a rule."""
RULES = 15
"""That a route may have."""
DOMAIN = "svc.cluster.local"


def ai_gateway(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    for number in range(0, len(served), RULES):
        yield _route(platform, served[number : number + RULES], number // RULES)
    for one in served:
        yield _service_backend(platform, one)
        yield _backend(platform, one)


def _route(platform: Platform, served: Sequence[Served], number: int) -> Document:
    """Answers take minutes: the gateway's own limit is one."""
    name = f"halfbyte-{number}" if number else "halfbyte"
    parent = {
        "group": GATEWAY_API,
        "kind": "Gateway",
        "name": platform.options.gateway_name,
        "namespace": platform.cluster.gateway_namespace,
    }
    rules = [
        {
            "matches": [{"headers": [{"type": "Exact", "name": MODEL_HEADER, "value": one.name}]}],
            "backendRefs": [{"name": door_name(one)}],
            "timeouts": {"request": "0s", "backendRequest": "0s"},
        }
        for one in served
    ]
    return {
        "apiVersion": API,
        "kind": "AIGatewayRoute",
        "metadata": metadata(name, platform.namespace, labels(name, "gateway")),
        "spec": {"parentRefs": [parent], "rules": rules},
    }


def _service_backend(platform: Platform, one: Served) -> Document:
    name = door_name(one)
    return {
        "apiVersion": API,
        "kind": "AIServiceBackend",
        "metadata": metadata(name, platform.namespace, labels(name, "gateway", one.name)),
        "spec": {"schema": {"name": "OpenAI"}, "backendRef": {"group": ENVOY, "kind": "Backend", "name": name}},
    }


def _backend(platform: Platform, one: Served) -> Document:
    """It may be no Service yet (envoyproxy/ai-gateway#902), so it is the Service's name."""
    name = door_name(one)
    where = {"hostname": f"{name}.{platform.namespace}.{DOMAIN}", "port": 80}
    return {
        "apiVersion": f"{ENVOY}/v1alpha1",
        "kind": "Backend",
        "metadata": metadata(name, platform.namespace, labels(name, "gateway", one.name)),
        "spec": {"endpoints": [{"fqdn": where}]},
    }
