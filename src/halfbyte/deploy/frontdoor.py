"""The door: two replicas of `halfbyte serve` a model on one PostgreSQL, and smg before several engines.

Tenants stand here with their limits; their keys are made with `halfbyte tenants add` and stand nowhere.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from halfbyte.deploy.facts import PORT, ROUTER_S, Served
from halfbyte.deploy.objects import (
    ANSWER_ANNOTATION,
    Document,
    disruption_budget,
    labels,
    locked_down,
    metadata,
    pod_security,
    scratch,
    selector,
    service,
)
from halfbyte.deploy.platform import Platform

DOOR, ROUTER = "door", "router"
DOOR_PORT, ROUTER_PORT = 8000, 8080
REPLICAS = 2
PRICES, TENANTS = "prices.json", "tenants.json"
CONFIG = "/etc/halfbyte"
SCRAPE_SECRET = "halfbyte-metrics"
STATE_VARIABLE, SCRAPE_VARIABLE = "HALFBYTE_LEDGER_URL", "HALFBYTE_METRICS_KEY"


def door_name(one: Served) -> str:
    return f"{DOOR}-{one.object}"


def front_door(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    yield _config(platform)
    for one in served:
        if platform.options.router:
            yield from _router(platform, one)
        yield _door(platform, one)
        yield service(door_name(one), platform.namespace, DOOR, 80, DOOR_PORT)
        yield disruption_budget(door_name(one), platform.namespace, DOOR)


def _config(platform: Platform) -> Document:
    """Prices and tenants of all models."""
    prices = {"usd_per_million_tokens": {name: price.model_dump() for name, price in sorted(platform.prices.items())}}
    tenants: dict[str, Any] = {
        tenant.name: {"models": list(tenant.models), **tenant.limits.model_dump(exclude_none=True, exclude={"models"})}
        for tenant in platform.tenants
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("halfbyte-door", platform.namespace, labels("halfbyte-door", DOOR)),
        "data": {
            PRICES: json.dumps(prices, indent=1) + "\n",
            TENANTS: json.dumps({"tenants": tenants}, indent=1) + "\n",
        },
    }


def _door(platform: Platform, one: Served) -> Document:
    name, marks = door_name(one), labels(door_name(one), DOOR, one.name)
    upstream = f"http://{one.object}-router:{ROUTER_PORT}" if platform.options.router else f"http://{one.object}:{PORT}"
    volumes, mounts, home = scratch()
    command = ["halfbyte", "serve", one.name, "--upstream", f"{upstream}/v1", "--state", f"$({STATE_VARIABLE})"]
    command += ["--price", f"{CONFIG}/{PRICES}", "--host", "0.0.0.0", "--port", str(DOOR_PORT)]
    command += ["--drain-timeout", str(one.drain_s), "--metrics-key-env", SCRAPE_VARIABLE]
    health: Document = {"httpGet": {"path": "/ready", "port": DOOR_PORT}}
    container: Document = {
        "name": DOOR,
        "image": platform.images.halfbyte,
        "command": command,
        "env": [
            *home,
            _secret(STATE_VARIABLE, platform.database.secret, platform.database.key),
            _secret(SCRAPE_VARIABLE, SCRAPE_SECRET, "key"),
        ],
        "ports": [{"name": "http", "containerPort": DOOR_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": locked_down(),
        "startupProbe": {"httpGet": {"path": "/health", "port": DOOR_PORT}, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": DOOR_PORT},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ROUTER_S)]}}},
        "volumeMounts": [*mounts, {"name": "config", "mountPath": CONFIG, "readOnly": True}],
    }
    pod: Document = {
        "terminationGracePeriodSeconds": one.grace_s,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(name, DOOR)},
            }
        ],
        "containers": [container],
        "volumes": [*volumes, {"name": "config", "configMap": {"name": "halfbyte-door"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, platform.namespace, marks, {ANSWER_ANNOTATION: str(one.drain_s)}),
        "spec": {
            "replicas": REPLICAS,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(name, DOOR)},
            "template": {"metadata": {"labels": marks}, "spec": pod},
        },
    }


def _secret(variable: str, secret: str, key: str) -> Document:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _router(platform: Platform, one: Served) -> Iterator[Document]:
    """smg finds the engines by the API server, so it alone has an account that may list pods, of this namespace."""
    name, namespace = f"{one.object}-router", platform.namespace
    marks = labels(name, ROUTER, one.name)
    meta = metadata(name, namespace, marks)
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "automountServiceAccountToken": False}
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": meta,
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    chosen = [f"{key}={value}" for key, value in selector(one.object, "engine").items()]
    command = ["smg", "launch", "--host", "0.0.0.0", "--port", str(ROUTER_PORT), "--policy", "cache_aware"]
    command += ["--service-discovery", "--service-discovery-namespace", namespace]
    command += ["--service-discovery-port", str(PORT), "--selector", *chosen]
    command += ["--shutdown-grace-period-secs", str(one.drain_s)]
    volumes, mounts, home = scratch()
    health: Document = {"httpGet": {"path": "/health", "port": ROUTER_PORT}, "periodSeconds": 5, "timeoutSeconds": 5}
    container: Document = {
        "name": ROUTER,
        "image": platform.images.router or platform.images.halfbyte,
        "command": command,
        "env": home,
        "ports": [{"name": "http", "containerPort": ROUTER_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "4Gi"}},
        "securityContext": locked_down(),
        "readinessProbe": {**health, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ROUTER_S)]}}},
        "volumeMounts": mounts,
    }
    pod: Document = {
        "terminationGracePeriodSeconds": one.grace_s,
        "serviceAccountName": name,
        "automountServiceAccountToken": True,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, namespace, marks, {ANSWER_ANNOTATION: str(one.drain_s)}),
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": selector(name, ROUTER)},
            "template": {"metadata": {"labels": marks}, "spec": pod},
        },
    }
    yield service(name, namespace, ROUTER, ROUTER_PORT, ROUTER_PORT)
    yield disruption_budget(name, namespace, ROUTER)
