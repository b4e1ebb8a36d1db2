"""Recording and alert rules, from the platform's objectives, prices and budgets, and the plan's figures.

Recording rules are named `level:metric:operation`. Under Kueue fewer replicas than wished are normal for a while: the
alert is about replicas that wait and requests that wait too.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.autoscaling import waiting_threshold
from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import DOOR, door_name
from halfbyte.deploy.objects import GPU, Document, labels, metadata
from halfbyte.deploy.platform import Platform, Tenant

API = "monitoring.coreos.com/v1"
SLO = 0.99
"""Share of requests that hold the first token's objective."""
BURN = 14.4
"""Of the month's error budget: at this rate two hundredths of it are gone in an hour (Google SRE workbook, ch. 5)."""
CACHE_FULL = 0.95
NEAR = 0.9
"""Of a tenant's budget of the month."""
STALE_DAYS = 30
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Of `halfbyte_time_to_first_token_seconds`; the objective is judged at the next one above."""


def rules(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    yield {
        "apiVersion": API,
        "kind": "PrometheusRule",
        "metadata": metadata("halfbyte", platform.namespace, labels("halfbyte", DOOR) | {"role": "alert-rules"}),
        "spec": {"groups": groups(platform, served)},
    }


def groups(platform: Platform, served: Sequence[Served]) -> list[Document]:
    return [
        {"name": "halfbyte-recorded", "interval": "30s", "rules": list(_recorded(platform, served))},
        {"name": "halfbyte-cost", "interval": "60s", "rules": list(_cost(platform, served))},
        {"name": "halfbyte-alerts", "rules": list(_alerts(platform, served))},
    ]


def bucket(seconds: float) -> str:
    """The `le` that an objective is judged at."""
    return str(float(next((edge for edge in BUCKETS if edge >= seconds), BUCKETS[-1])))


def _record(name: str, expr: str, **marks: str) -> Document:
    return {"record": name, "expr": expr} | ({"labels": marks} if marks else {})


def _recorded(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    here = f'namespace="{platform.namespace}"'
    yield _record(
        "tenant:halfbyte_tokens:rate5m", f"sum by (tenant, model, type) (rate(halfbyte_tokens_total{{{here}}}[5m]))"
    )
    yield _record(
        "tenant:halfbyte_cost_usd:rate1h", f"sum by (tenant, model) (rate(halfbyte_cost_usd_total{{{here}}}[1h]))"
    )
    yield _record("model:halfbyte_cost_usd:rate1h", "sum by (model) (tenant:halfbyte_cost_usd:rate1h)")
    yield _record("service:halfbyte_queue_tokens:sum", f"sum by (service) (halfbyte_queue_tokens{{{here}}})")
    first = "halfbyte_time_to_first_token_seconds"
    edge = bucket(platform.objectives.ttft_ms / 1000)
    for window in ("5m", "1h"):
        good = f'sum by (model) (rate({first}_bucket{{{here},le="{edge}"}}[{window}]))'
        all_ = f"sum by (model) (rate({first}_count{{{here}}}[{window}]))"
        yield _record(f"model:halfbyte_ttft_over_objective:ratio{window}", f"1 - {good} / {all_}")
    for one in served:
        metrics, chosen = one.command.engine.metrics, f'{here},{one.command.engine.metrics.model}="{one.name}"'
        yield _record("model:halfbyte_cache_used:max", f"max({metrics.cache_used}{{{chosen}}})", model=one.name)
        yield _record("model:halfbyte_engine_waiting:sum", f"sum({metrics.waiting}{{{chosen}}})", model=one.name)


def _cost(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    """Dollars an hour by pool price, what tenants pay of it, and the rest, which is idle: together the pool."""
    for one in served:
        yield _record("model:halfbyte_pool_cost_usd:per_hour", _held(platform, one), model=one.name)
    yield _record(
        "model:halfbyte_idle_cost_usd:per_hour",
        "model:halfbyte_pool_cost_usd:per_hour - (3600 * model:halfbyte_cost_usd:rate1h or 0 * "
        "model:halfbyte_pool_cost_usd:per_hour)",
    )
    yield _record(
        "model:halfbyte_usd_per_1m_tokens:ratio1h",
        "1e6 * model:halfbyte_pool_cost_usd:per_hour / on (model) (3600 * sum by (model) "
        '(tenant:halfbyte_tokens:rate5m{type=~"prompt|output"}))',
    )
    yield _record(
        "model:halfbyte_opencost_difference:ratio",
        'sum by (model) (label_replace(opencost_model_cost_per_hour, "model", "$1", "inference_model", "(.+)")) / '
        "on (model) model:halfbyte_pool_cost_usd:per_hour - 1",
    )


def _held(platform: Platform, one: Served) -> str:
    """Dollars an hour of a model's GPUs. In which of several pools they are, Kueue alone says, if it is told to."""
    engine = f'namespace="{platform.namespace}",pod=~"{one.object}-[0-9a-z-]+",resource="nvidia_com_gpu"'
    all_ = f"sum(kube_pod_container_resource_requests{{{engine}}}) * {one.pool.usd_per_gpu_hour!r}"
    if len(one.pools) == 1:
        return all_
    used = f'kueue_cluster_queue_resource_usage{{cluster_queue="{one.queue}",resource="{GPU}",flavor='
    each = (f'max by (flavor) ({used}"{pool.name}"}}) * {pool.usd_per_gpu_hour!r}' for pool in one.pools)
    return f"sum({' or '.join(each)}) or {all_}"


def _alert(
    name: str, expr: str, summary: str, *, lasting: str | None, severity: str = "warning", **marks: str
) -> Document:
    held = {"for": lasting} if lasting is not None else {}
    return {
        "alert": name,
        "expr": expr,
        **held,
        "labels": {"severity": severity, **marks},
        "annotations": {"summary": summary},
    }


def _alerts(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    here = f'namespace="{platform.namespace}"'
    for one in served:
        waiting = f'service:halfbyte_queue_tokens:sum{{service="{door_name(one)}"}}'
        limit = waiting_threshold(platform, one)
        yield _alert(
            "HalfbyteReplicasGated",
            f'sum(kueue_pending_workloads{{cluster_queue="{one.queue}"}}) > 0 and on () {waiting} > {limit}',
            f"Replicas of {one.name} wait for quota in Kueue while its requests wait: see halfbyte deploy --explain.",
            lasting="10m",
            model=one.name,
        )
    yield _alert(
        "HalfbyteCacheFull",
        f"model:halfbyte_cache_used:max > {CACHE_FULL}",
        "The KV cache of {{ $labels.model }} is full: requests are preempted soon.",
        lasting="10m",
    )
    ratio, burning = "model:halfbyte_ttft_over_objective:ratio", round((1 - SLO) * BURN, 6)
    yield _alert(
        "HalfbyteFirstTokenBurn",
        f"{ratio}5m > {burning} and {ratio}1h > {burning}",
        f"First tokens of {{{{ $labels.model }}}} miss {platform.objectives.ttft_ms:g} ms so often that the month's "
        "error budget is gone in two days.",
        lasting=None,
        severity="critical",
    )
    yield _alert(
        "HalfbyteEngineRestarts",
        f'sum by (pod) (increase(kube_pod_container_status_restarts_total{{{here},container="engine"}}[1h])) > 2',
        "Engine {{ $labels.pod }} restarted more than twice within an hour.",
        lasting="1m",
        severity="critical",
    )
    yield _alert(
        "HalfbyteNoReplica",
        f"sum by (service) (halfbyte_upstream_up{{{here}}}) == 0",
        "No engine answers {{ $labels.service }}.",
        lasting="2m",
        severity="critical",
    )
    yield _alert(
        "HalfbyteGateStale",
        f'time() - max(kube_job_status_completion_time{{{here},job_name=~".+-gate"}}) > {STALE_DAYS * 86400}',
        f"The gate has judged no checkpoint for {STALE_DAYS} days: run its Job.",
        lasting="1h",
        severity="info",
    )
    for tenant in platform.tenants:
        yield from _budget(platform, tenant)


def _budget(platform: Platform, tenant: Tenant) -> Iterator[Document]:
    chosen = f'namespace="{platform.namespace}",tenant="{tenant.name}"'
    for limit, metric, what in (
        (tenant.limits.usd_per_month, "halfbyte_cost_usd_total", "dollars"),
        (tenant.limits.tokens_per_month, "halfbyte_tokens_total", "tokens"),
    ):
        if limit is None:
            continue
        kinds = ',type=~"prompt|output"' if what == "tokens" else ""
        yield _alert(
            "HalfbyteBudgetNear",
            f"sum(increase({metric}{{{chosen}{kinds}}}[30d])) > {limit * NEAR:g}",
            f"Tenant {tenant.name} has used {NEAR:.0%} of the {what} of a month.",
            lasting="5m",
            tenant=tenant.name,
            budget=what,
        )
