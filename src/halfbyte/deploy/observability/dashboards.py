"""Two Grafana dashboards as JSON in ConfigMaps that its sidecar finds: how it runs, and what it costs.

Sums of cost are the doors' own counters, which equal the ledger to the token: Prometheus' `increase` extrapolates, and
misses what a series began with. `halfbyte usage` has what went before the doors started.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from halfbyte.deploy.facts import Served
from halfbyte.deploy.objects import Document, labels, metadata
from halfbyte.deploy.platform import Platform

SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 12, 8
Panel = tuple[str, str, list[tuple[str, str]]]
"""Title, unit, and its queries with their legends."""


def dashboards(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    for uid, title, panels in (
        ("halfbyte-serving", "Halfbyte: serving", _serving(platform)),
        ("halfbyte-cost", "Halfbyte: cost", _cost(platform)),
    ):
        content = json.dumps(_dashboard(uid, title, platform, panels), indent=1) + "\n"
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(uid, platform.namespace, labels(uid, "dashboard") | {"grafana_dashboard": "1"}),
            "data": {f"{uid}.json": content},
        }


def _serving(platform: Platform) -> list[Panel]:
    here = f'namespace="{platform.namespace}",model=~"$model"'
    all_ = f'namespace="{platform.namespace}"'
    first, each = "halfbyte_time_to_first_token_seconds", "halfbyte_time_per_output_token_seconds"

    def quantile(metric: str, q: float) -> str:
        return f"histogram_quantile({q}, sum by (le, model) (rate({metric}_bucket{{{here}}}[$__rate_interval])))"

    return [
        ("Time to first token", "s", [(quantile(first, q), f"p{q * 100:g} {{{{model}}}}") for q in (0.5, 0.99)]),
        ("Time per output token", "s", [(quantile(each, q), f"p{q * 100:g} {{{{model}}}}") for q in (0.5, 0.99)]),
        (
            "Tokens a second",
            "short",
            [(f"sum by (model, type) (rate(halfbyte_tokens_total{{{here}}}[$__rate_interval]))", "{{model}} {{type}}")],
        ),
        (
            "Waiting and running",
            "short",
            [
                (f"sum by (service) (halfbyte_queue_requests{{{all_}}})", "waiting at {{service}}"),
                (f"sum by (service) (halfbyte_running_requests{{{all_}}})", "running at {{service}}"),
                ("model:halfbyte_engine_waiting:sum", "waiting in the engines of {{model}}"),
            ],
        ),
        (
            "Refused, by reason",
            "reqps",
            [(f"sum by (reason) (rate(halfbyte_refused_total{{{all_}}}[$__rate_interval]))", "{{reason}}")],
        ),
        ("KV cache used", "percentunit", [("model:halfbyte_cache_used:max", "{{model}}")]),
        (
            "Replicas that wait for quota",
            "short",
            [("sum by (cluster_queue, status) (kueue_pending_workloads)", "{{cluster_queue}} {{status}}")],
        ),
        ("Reserved tokens", "short", [(f"sum by (tenant) (halfbyte_reserved_tokens{{{all_}}})", "{{tenant}}")]),
    ]


def _cost(platform: Platform) -> list[Panel]:
    here = f'namespace="{platform.namespace}",tenant=~"$tenant",model=~"$model"'
    return [
        (
            "Tokens by tenant and kind, since the doors started",
            "short",
            [(f"sum by (tenant, type) (halfbyte_tokens_total{{{here}}})", "{{tenant}} {{type}}")],
        ),
        (
            "Dollars by tenant, since the doors started",
            "currencyUSD",
            [(f"sum by (tenant) (halfbyte_cost_usd_total{{{here}}})", "{{tenant}}")],
        ),
        (
            "Tokens an hour by tenant",
            "short",
            [(f"3600 * sum by (tenant) (rate(halfbyte_tokens_total{{{here}}}[$__rate_interval]))", "{{tenant}}")],
        ),
        (
            "Dollars an hour: paid and idle",
            "currencyUSD",
            [
                ("3600 * model:halfbyte_cost_usd:rate1h", "paid for {{model}}"),
                ("model:halfbyte_idle_cost_usd:per_hour", "idle {{model}}"),
            ],
        ),
        ("Dollars per million tokens", "currencyUSD", [("model:halfbyte_usd_per_1m_tokens:ratio1h", "{{model}}")]),
        (
            "Requests by tenant, since the doors started",
            "short",
            [(f"sum by (tenant) (halfbyte_requests_settled_total{{{here}}})", "{{tenant}}")],
        ),
        ("OpenCost over ours", "percentunit", [("model:halfbyte_opencost_difference:ratio", "{{model}}")]),
    ]


def _variable(name: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def _dashboard(uid: str, title: str, platform: Platform, panels: list[Panel]) -> dict[str, Any]:
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "tags": ["halfbyte"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [source, _variable("model", "halfbyte_tokens_total"), _variable("tenant", "halfbyte_tokens_total")]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    targets = [
        {"datasource": SOURCE, "expr": expr, "legendFormat": legend, "refId": chr(ord("A") + at)}
        for at, (expr, legend) in enumerate(queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": WIDTH * (number % 2), "y": HEIGHT * (number // 2), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": targets,
    }
