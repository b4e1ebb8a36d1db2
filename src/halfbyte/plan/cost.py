"""Money: dollars per million tokens of each kind, per tenant, at a utilisation, and against an API's price.

Formulas of platform notes 4.1. The pool is paid for whether busy or not: prices are divided by the utilisation.
Reasoning tokens are a part of the output, never added to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from halfbyte.errors import UsageError
from halfbyte.plan.throughput import Speed, SpeedModel
from halfbyte.plan.trace import Request
from halfbyte.plan.workload import Workload

HOURS_PER_MONTH = 730
CACHED_WEIGHT = 0.05
"""Weight of a cached input token against a computed one: 0.0 to 0.1 in the notes."""
UTILISATIONS = (1.0, 0.5, 0.2)
REASONING_LENGTHS = (1_000, 4_000, 16_000, 37_000)
"""Output tokens of the sensitivity table; answers of 37,000 tokens are posted for reasoning models."""


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens. visible: of a token that readers see, when a share of the output is hidden."""

    input: float
    cached_input: float
    output: float
    visible: float


def output_weight(model: SpeedModel, speed: Speed, input_tokens: int, output_tokens: int) -> float:
    """GPU time of an output token over that of an uncached input token (w_output; w_input is 1)."""
    prefill = model.prefill_ms(input_tokens) / model.d.kv_ranks / input_tokens
    each = max(1.0, speed.concurrency / model.d.replicas)
    step = model.decode_step_ms(each, input_tokens + output_tokens / 2)
    return step / each / model.tokens_per_step / prefill


def prices(
    pool_per_hour: float,
    speed: Speed,
    weight: float,
    utilisation: float,
    reasoning_share: float = 0.0,
) -> Prices:
    """usd_per_1M(k) = 1e6 * w_k * pool cost / sum of w_j * tokens_j, at `utilisation` of the speed's tokens."""
    weighted = (speed.input_tokens_per_s + weight * speed.output_tokens_per_s) * 3600 * utilisation
    unit = 1e6 * pool_per_hour / weighted
    output = weight * unit
    return Prices(unit, CACHED_WEIGHT * unit, output, output / (1 - reasoning_share))


def tenant_costs(
    pool_cost: float, busy_share: float, weighted_tokens: dict[str, float], quotas: dict[str, float]
) -> dict[str, float]:
    """Dollars per tenant: the busy part by use, the idle part by reserved quota. They sum to the pool's cost."""
    used, reserved = sum(weighted_tokens.values()), sum(quotas.values())
    if used <= 0 or reserved <= 0:
        raise UsageError("tenant costs need some tokens and some quota")
    names = sorted({*weighted_tokens, *quotas})
    return {
        name: pool_cost * busy_share * weighted_tokens.get(name, 0.0) / used
        + pool_cost * (1 - busy_share) * quotas.get(name, 0.0) / reserved
        for name in names
    }


def tenant_json(requests: Sequence[Request], cost: dict[str, Any], busy_share: float) -> dict[str, float]:
    """Dollars per hour by tenant of a trace, by weighted tokens; idle time too, as no quotas are known here."""
    weighted: dict[str, float] = {}
    for request in requests:
        tokens = request.input + cost["output_weight"] * request.output
        weighted[request.tenant] = weighted.get(request.tenant, 0.0) + tokens
    shares = tenant_costs(cost["pool_per_hour"], busy_share, weighted, weighted)
    return {name: round(value, 4) for name, value in shares.items()}


def breakeven_tokens_per_month(pool_per_hour: float, api_price_per_million: float) -> float:
    """Output tokens a month above which the pool is cheaper than an API of that price."""
    return pool_per_hour * HOURS_PER_MONTH / api_price_per_million * 1e6


def cost_json(model: SpeedModel, speed: Speed, workload: Workload, price: float) -> dict[str, Any]:
    """The `cost` object of `plan --json`. price: dollars per GPU-hour."""
    input_tokens, output_tokens = workload.input_tokens, workload.output_tokens
    utilisation, api_price = workload.utilisation, workload.api_price
    pool = price * model.d.gpus
    weight = output_weight(model, speed, input_tokens, output_tokens)
    planned = prices(pool, speed, weight, utilisation, workload.reasoning_share)
    found: dict[str, Any] = {
        "price_per_gpu_hour": price,
        "pool_per_hour": round(pool, 4),
        "utilisation": utilisation,
        "output_weight": round(weight, 3),
        "usd_per_million": {
            "input": round(planned.input, 4),
            "cached_input": round(planned.cached_input, 4),
            "output": round(planned.output, 4),
            "reasoning": round(planned.output, 4),
            "visible_output": round(planned.visible, 4),
        },
        "output_only_usd_per_million": {
            f"{share:g}": round(1e6 * pool / (speed.output_tokens_per_s * 3600 * share), 4)
            for share in dict.fromkeys([*UTILISATIONS, utilisation])
        },
        "usd_per_request_by_output_tokens": _sensitivity(model, speed, pool, input_tokens, utilisation),
    }
    if api_price is not None:
        tokens = breakeven_tokens_per_month(pool, api_price)
        capacity = speed.output_tokens_per_s * 3600 * HOURS_PER_MONTH
        found["breakeven"] = {
            "api_usd_per_million": api_price,
            "output_tokens_per_month": round(tokens),
            "share_of_capacity": round(tokens / capacity, 4),
        }
    return found


def _sensitivity(
    model: SpeedModel, speed: Speed, pool: float, input_tokens: int, utilisation: float
) -> dict[str, float]:
    """Dollars per request when answers are longer: the same load, other output lengths."""
    found = {}
    for length in REASONING_LENGTHS:
        other = model.at(speed.concurrency, input_tokens, length)
        found[str(length)] = round(pool / 3600 / (other.requests_per_s * utilisation), 6)
    return found
