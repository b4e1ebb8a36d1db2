"""How many replicas a trace needs for an SLO: simulate, and search for the smallest number that holds it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from halfbyte.errors import UsageError
from halfbyte.plan.memory import MemoryPlan
from halfbyte.plan.simulate import Outcome, Replica, StepTimes
from halfbyte.plan.throughput import SpeedModel
from halfbyte.plan.trace import Request
from halfbyte.plan.workload import Workload

MOST_REPLICAS = 1024
SLO_PERCENTILE = 95
SAMPLED_REPLICAS = 2
"""Requests are dealt round robin, so replicas differ by chance only: this many are simulated while searching."""


def simulate_trace(
    requests: Sequence[Request], speeds: SpeedModel, memory: MemoryPlan, replicas: int = 1, only: int | None = None
) -> list[Outcome]:
    """Deal requests to `replicas` servers in turn and simulate each, or only the first `only` of them."""
    d = memory.deployment
    times = StepTimes(speeds)
    found = []
    for number in range(min(replicas, only or replicas)):
        replica = Replica(times, memory.kv_tokens * d.kv_ranks, memory.limits.max_sequences * d.kv_ranks)
        found.append(replica.run(requests[number::replicas]))
    return found


def size_for_trace(
    requests: Sequence[Request], speeds: SpeedModel, memory: MemoryPlan, workload: Workload
) -> dict[str, Any]:
    """The `traffic` object of `plan --json`: the given servers under the trace, and the replicas for the SLO."""
    present = simulate_trace(requests, speeds, memory, memory.deployment.replicas)
    found: dict[str, Any] = {
        "requests": len(requests),
        "seconds": round(requests[-1].arrival - requests[0].arrival, 1),
        "replicas": memory.deployment.replicas,
        **outcome_json(present, memory),
        "slo": {"ttft_ms": workload.slo_ttft_ms, "tpot_ms": workload.slo_tpot_ms, "percentile": SLO_PERCENTILE},
    }
    found["replicas_for_slo"] = replicas_for_slo(requests, speeds, memory, workload)
    return found


def replicas_for_slo(
    requests: Sequence[Request], speeds: SpeedModel, memory: MemoryPlan, workload: Workload
) -> int | None:
    """The smallest number of replicas with p95 TTFT and TPOT within the SLO; None if no number does it."""

    def holds(replicas: int) -> bool:
        outcomes = simulate_trace(requests, speeds, memory, replicas, SAMPLED_REPLICAS)
        ttft = [value for outcome in outcomes for value in outcome.ttft]
        tpot = [value for outcome in outcomes for value in outcome.tpot]
        if not ttft or any(outcome.rejected for outcome in outcomes):
            return False
        return bool(
            np.percentile(ttft, SLO_PERCENTILE) * 1e3 <= workload.slo_ttft_ms
            and np.percentile(tpot, SLO_PERCENTILE) * 1e3 <= workload.slo_tpot_ms
        )

    high = 1
    while not holds(high):
        high *= 2
        if high > MOST_REPLICAS or high > len(requests):
            return None
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def outcome_json(outcomes: Sequence[Outcome], memory: MemoryPlan) -> dict[str, Any]:
    """Percentiles and totals over replicas."""
    if not any(outcome.ttft for outcome in outcomes):
        raise UsageError("no request of the trace fits into the KV cache", hint="plan with a larger pool")
    end = max(outcome.end for outcome in outcomes)
    capacity = memory.kv_tokens * memory.deployment.kv_ranks
    tenants: dict[str, int] = {}
    for outcome in outcomes:
        for tenant in outcome.tenants:
            tenants[tenant] = tenants.get(tenant, 0) + 1
    return {
        "completed": sum(len(outcome.ttft) for outcome in outcomes),
        "rejected": sum(outcome.rejected for outcome in outcomes),
        "preemptions": sum(outcome.preemptions for outcome in outcomes),
        "ttft_ms": _percentiles([value for outcome in outcomes for value in outcome.ttft]),
        "tpot_ms": _percentiles([value for outcome in outcomes for value in outcome.tpot]),
        "total_ms": _percentiles([value for outcome in outcomes for value in outcome.total]),
        "queue_ms": _percentiles([value for outcome in outcomes for value in outcome.queued]),
        "output_tokens_per_s": round(sum(outcome.output_tokens for outcome in outcomes) / end, 1),
        "busy_share": round(sum(outcome.busy_seconds for outcome in outcomes) / (end * len(outcomes)), 4),
        "kv_use_mean": round(sum(o.kv_token_seconds for o in outcomes) / (end * len(outcomes) * capacity), 4),
        "kv_use_peak": round(max(outcome.peak_kv_tokens for outcome in outcomes) / capacity, 4),
        "running_peak": max(outcome.peak_running for outcome in outcomes),
        "requests_by_tenant": dict(sorted(tenants.items())),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    values = np.percentile(seconds, [50, 90, 95, 99])
    return {
        name: round(float(value) * 1e3, 2) for name, value in zip(("p50", "p90", "p95", "p99"), values, strict=True)
    }
