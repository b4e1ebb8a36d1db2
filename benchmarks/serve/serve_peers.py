"""Other proxies before the paced upstream of serve.py, each as plain as it can be: one model, one upstream, no keys.

LiteLLM's proxy without its database, smg with its prefix routing, Envoy with one thread and plain HTTP routing: none of
them counts tokens for tenants here, which the door does.
"""

import json
import subprocess
import sys
from pathlib import Path

LITELLM = """
model_list:
  - model_name: m
    litellm_params: {model: openai/m, api_base: "SOURCE/v1", api_key: none}
litellm_settings: {telemetry: false}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""


def command(name: str, program: str, source: str, port: int, folder: Path) -> tuple[list[str], str]:
    """Words that start the proxy at `port` before `source` (a base URL), and the path that answers once it is up."""
    if name == "litellm":
        config = folder / "litellm.yaml"
        config.write_text(LITELLM.replace("SOURCE", source))
        return [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)], "/health/liveliness"
    if name == "smg":
        flags = ["--policy", "cache_aware", "--host", "127.0.0.1", "--log-level", "warn"]
        flags += ["--worker-startup-check-interval", "1", "--prometheus-port", str(port + 1)]
        return [program, "launch", "--worker-urls", source, *flags, "--port", str(port)], "/v1/models"
    if name == "envoy":
        config = folder / "envoy.json"
        config.write_text(json.dumps(_envoy(int(source.rpartition(":")[2]), port)))
        return [program, "-c", str(config), "--concurrency", "1", "-l", "error"], "/health"
    raise SystemExit(f"{name}: no such peer; litellm, smg or envoy")


def started(words: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=sys.stderr)


def _envoy(upstream: int, port: int) -> dict[str, object]:
    def at(number: int) -> dict[str, object]:
        return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": number}}}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}],
                }
            ]
        },
    }
    listener = {
        "name": "in",
        **at(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    limits = {"thresholds": [{"max_connections": 100_000, "max_requests": 100_000, "max_pending_requests": 100_000}]}
    cluster = {
        "name": "up",
        "type": "STATIC",
        "circuit_breakers": limits,
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": at(upstream)}]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
