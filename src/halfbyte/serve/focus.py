"""Usage as FOCUS 1.2, the FinOps cost and usage format: a charge for each tenant, model, day, price and kind."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from halfbyte.serve.ledger.report import charges
from halfbyte.serve.ledger.script import Script
from halfbyte.serve.money import KINDS, PICO, Price, Tokens
from halfbyte.serve.tenant import IDLE
from halfbyte.serve.usage import UsageQuery, csv_of, usage_document

SERVICE = "Halfbyte inference"
NAMES = {
    "prompt": "prompt tokens, not cached",
    "cached": "prompt tokens, cached",
    "output": "output tokens, without reasoning",
    "reasoning": "reasoning tokens",
}
COLUMNS = (
    *("BilledCost", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargePeriodStart", "ChargePeriodEnd", "ConsumedQuantity", "ConsumedUnit"),
    *("ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingQuantity"),
    *("PricingUnit", "ProviderName", "PublisherName", "ResourceId", "ServiceCategory", "ServiceName", "SkuId"),
    *("SubAccountId", "SubAccountName"),
)


def focus_csv(query: UsageQuery) -> Script[str]:
    """All kinds add up to what `usage` says; idle cost is a charge of its own."""
    rows = []
    for tenant, model, day, price, tokens in (yield from charges(query.since, query.until)):
        rows += list(_kinds(tenant, model, day, price, tokens))
    idle = yield from usage_document(UsageQuery(("tenant", "day"), query.since, query.until))
    rows += [
        _row(IDLE, "", row["day"], "idle", "machines beyond what tenants paid", 0, 0, row["usd"])
        for row in idle["rows"]
        if row["tenant"] == IDLE
    ]
    return csv_of(COLUMNS, rows)


def _kinds(tenant: str, model: str, day: str, price: Price, tokens: Tokens) -> Iterator[dict[str, Any]]:
    numbers = {
        "prompt": tokens.prompt - tokens.cached,
        "cached": tokens.cached,
        "output": tokens.output - tokens.reasoning,
        "reasoning": tokens.reasoning,
    }
    for kind in KINDS:
        each = getattr(price, kind)
        if numbers[kind]:
            yield _row(tenant, model, day, kind, NAMES[kind], numbers[kind], each, numbers[kind] * each / PICO)


def _row(
    tenant: str, model: str, day: str, kind: str, said: str, quantity: int, pico: int, usd: float
) -> dict[str, Any]:
    """pico: pico-dollars a token."""
    start = date.fromisoformat(day)
    month = start.replace(day=1)
    following = (month + timedelta(days=32)).replace(day=1)
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), usd),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), "Halfbyte"),
        "BillingCurrency": "USD",
        "BillingPeriodStart": f"{month}T00:00:00Z",
        "BillingPeriodEnd": f"{following}T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{model}: {said}" if model else said,
        "ChargePeriodStart": f"{start}T00:00:00Z",
        "ChargePeriodEnd": f"{start + timedelta(days=1)}T00:00:00Z",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Tokens",
        "ListUnitPrice": pico / 10**6,
        "PricingQuantity": quantity / 10**6,
        "PricingUnit": "1000000 Tokens",
        "ResourceId": model,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": SERVICE,
        "SkuId": f"{model}/{kind}" if model else kind,
        "SubAccountId": tenant,
        "SubAccountName": tenant,
    }
