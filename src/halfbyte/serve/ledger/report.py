"""What the ledger says of tenants, usage and the pool."""

import json
from typing import Any

from halfbyte.serve.ledger.counts import held_by, used_by
from halfbyte.serve.ledger.script import Script, day_of
from halfbyte.serve.money import PICO, Price, Tokens


def standing_of(tenant: str, now: float) -> Script[dict[str, Any]]:
    """What `tenants show` prints beside the limits."""
    day = day_of(now)
    held = yield from held_by(tenant)
    used = yield from used_by(tenant, (day, day[:7]))

    def shown(period: str) -> dict[str, Any]:
        requests, tokens, pico = used[period]
        return {"requests": requests, "tokens": tokens, "usd": pico / PICO}

    return {
        "used": {"day": shown(day), "month": shown(day[:7])},
        "reserved": {"requests": held.requests, "tokens": held.prompt + held.output, "usd": held.usd / PICO},
    }


COLUMNS = ("tenant", "model", "day", "request")


def usage(
    by: tuple[str, ...], since: str | None = None, until: str | None = None, tenant: str | None = None
) -> Script[list[dict[str, Any]]]:
    """Sums of settled requests by the given columns, in their order. since, until: days, both included."""
    conditions, values = ["settled = 1"], {}
    for name, condition, value in (
        ("since", "day >= :since", since),
        ("until", "day <= :until", until),
        ("tenant", "tenant = :tenant", tenant),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    where = " AND ".join(conditions)
    sums = "SUM(prompt), SUM(cached), SUM(output), SUM(reasoning), SUM(usd)"
    kinds = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    if "request" in by:
        rows = yield (
            f"SELECT tenant, model, day, id, status, started, prompt, cached, output, reasoning, usd FROM requests "
            f"WHERE {where} ORDER BY started, id",
            values,
        )
        return [
            dict(zip(("tenant", "model", "day", "request", "status", "started"), row[:6], strict=True))
            | {"requests": 1}
            | {kind: int(number) for kind, number in zip(kinds, row[6:10], strict=True)}
            | {"usd_pico": int(row[10])}
            for row in rows
        ]
    columns = ", ".join(by)
    grouped = f"GROUP BY {columns} ORDER BY {columns}" if by else ""
    rows = yield f"SELECT {columns}{', ' if by else ''}COUNT(*), {sums} FROM requests WHERE {where} {grouped}", values
    found = []
    for row in rows:
        names, (count, *numbers, pico) = row[: len(by)], row[len(by) :]
        if count:
            found.append(
                dict(zip(by, names, strict=True))
                | {"requests": int(count)}
                | {kind: int(number) for kind, number in zip(kinds, numbers, strict=True)}
                | {"usd_pico": int(pico)}
            )
    return found


def pool_cost(since: str | None, until: str | None) -> Script[list[tuple[str, int]]]:
    """(day, pico-dollars) that the machines cost, used or idle."""
    rows = yield (
        "SELECT day, usd FROM pool WHERE day >= :since AND day <= :until ORDER BY day",
        {"since": since or "", "until": until or "9999"},
    )
    return [(day, int(pico)) for day, pico in rows]


def charges(since: str | None, until: str | None) -> Script[list[tuple[str, str, str, Price, Tokens]]]:
    """Sums by tenant, model, day and price."""
    rows = yield (
        "SELECT tenant, model, day, price, SUM(prompt), SUM(cached), SUM(output), SUM(reasoning) FROM requests "
        "WHERE settled = 1 AND day >= :since AND day <= :until GROUP BY tenant, model, day, price "
        "ORDER BY day, tenant, model, price",
        {"since": since or "", "until": until or "9999"},
    )
    return [(a, b, c, Price(*json.loads(d)), Tokens(*(int(number) for number in sums))) for a, b, c, d, *sums in rows]
