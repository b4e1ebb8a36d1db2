"""Tests of the rules in promtool's form: every alert fires on one recorded series, and is silent on another."""

from collections.abc import Sequence

from halfbyte.deploy.autoscaling import waiting_threshold
from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import door_name
from halfbyte.deploy.objects import Document
from halfbyte.deploy.observability.rules import BURN, CACHE_FULL, NEAR, SLO, STALE_DAYS, bucket, groups
from halfbyte.deploy.platform import Platform

Series = list[tuple[str, str]]
"""Series and its values, in promtool's notation."""
MINUTES = 90


def rule_tests(platform: Platform, served: Sequence[Served]) -> Document:
    tests = []
    for fires in (True, False):
        for name, series, labels, annotations in _cases(platform, served, fires):
            alerts = [{"exp_labels": labels, "exp_annotations": annotations}] if fires else []
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is silent'}",
                    "interval": "1m",
                    "input_series": [{"series": what, "values": values} for what, values in series],
                    "alert_rule_test": [{"eval_time": f"{MINUTES}m", "alertname": name, "exp_alerts": alerts}],
                }
            )
    return {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}


def _cases(
    platform: Platform, served: Sequence[Served], fires: bool
) -> list[tuple[str, Series, dict[str, str], dict[str, str]]]:
    """(alert, series, labels, annotations), one for each alert rule."""
    found = []
    for rule in groups(platform, served)[-1]["rules"]:
        series, labels = _SERIES[rule["alert"]](platform, served, rule["labels"], fires)
        summary = rule["annotations"]["summary"]
        for key, value in labels.items():
            summary = summary.replace(f"{{{{ $labels.{key} }}}}", value)
        found.append((rule["alert"], series, labels | rule["labels"], {"summary": summary}))
    return found


def _steady(value: float) -> str:
    return f"{value:g}x{MINUTES}"


def _growing(step: float) -> str:
    return f"0+{step:g}x{MINUTES}"


def _gated(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    """Silent where replicas wait for quota and nobody waits for them."""
    one = next(one for one in served if one.name == marks["model"])
    tokens = 2 * waiting_threshold(platform, one) if fires else 0
    waiting = f'halfbyte_queue_tokens{{namespace="{platform.namespace}",service="{door_name(one)}"}}'
    pending = f'kueue_pending_workloads{{cluster_queue="{one.queue}",status="inadmissible"}}'
    return [(pending, _steady(1)), (waiting, _steady(tokens))], {}


def _cache(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    one = served[0]
    metrics = one.command.engine.metrics
    used = f'{metrics.cache_used}{{namespace="{platform.namespace}",{metrics.model}="{one.name}",pod="a"}}'
    return [(used, _steady(CACHE_FULL + 0.02 if fires else CACHE_FULL - 0.1))], {"model": one.name}


def _burn(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    one, first = served[0], "halfbyte_time_to_first_token_seconds"
    chosen = f'namespace="{platform.namespace}",tenant="t",model="{one.name}"'
    slow = (1 - SLO) * BURN * (2 if fires else 0.5)
    edge = bucket(platform.objectives.ttft_ms / 1000)
    series = [
        (f"{first}_count{{{chosen}}}", _growing(1000)),
        (f'{first}_bucket{{{chosen},le="{edge}"}}', _growing(1000 * (1 - slow))),
    ]
    return series, {"model": one.name}


def _restarts(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    chosen = f'namespace="{platform.namespace}",container="engine",pod="a"'
    series = f"kube_pod_container_status_restarts_total{{{chosen}}}"
    return [(series, _growing(0.1 if fires else 0))], {"pod": "a"}


def _nobody(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    door = door_name(served[0])
    chosen = f'namespace="{platform.namespace}",service="{door}"'
    alive = [(f'halfbyte_upstream_up{{{chosen},upstream="{number}"}}', _steady(0)) for number in range(2)]
    return [*alive[:-1], (alive[-1][0], _steady(0 if fires else 1))], {"service": door}


def _stale(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    """promtool's clock begins at 0, so what was long ago is before it."""
    done = f'kube_job_status_completion_time{{namespace="{platform.namespace}",job_name="{served[0].object}-gate"}}'
    return [(done, _steady(-(STALE_DAYS + 1) * 86400 if fires else 0))], {}


def _spent(
    platform: Platform, served: Sequence[Served], marks: dict[str, str], fires: bool
) -> tuple[Series, dict[str, str]]:
    tenant = next(tenant for tenant in platform.tenants if tenant.name == marks["tenant"])
    dollars = marks["budget"] == "dollars"
    limit = (tenant.limits.usd_per_month if dollars else tenant.limits.tokens_per_month) or 0
    metric = "halfbyte_cost_usd_total" if dollars else "halfbyte_tokens_total"
    kind = "" if dollars else ',type="prompt"'
    series = f'{metric}{{namespace="{platform.namespace}",tenant="{tenant.name}",model="{served[0].name}"{kind}}}'
    return [(series, _growing(limit * (NEAR + 0.3 if fires else NEAR / 2) / MINUTES))], {}


_SERIES = {
    "HalfbyteReplicasGated": _gated,
    "HalfbyteCacheFull": _cache,
    "HalfbyteFirstTokenBurn": _burn,
    "HalfbyteEngineRestarts": _restarts,
    "HalfbyteNoReplica": _nobody,
    "HalfbyteGateStale": _stale,
    "HalfbyteBudgetNear": _spent,
}
"""Alert -> what makes it fire, or nearly."""
