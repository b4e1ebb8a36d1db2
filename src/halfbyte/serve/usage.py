"""The usage document: what tenants used and paid, and what the machines cost beyond that."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from halfbyte.errors import UsageError, said
from halfbyte.serve.ledger.report import COLUMNS, pool_cost, usage
from halfbyte.serve.ledger.script import Script
from halfbyte.serve.money import PICO
from halfbyte.serve.tenant import IDLE

FIGURES = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
DEFAULT_BY = ("tenant", "model", "day")


@dataclass(frozen=True)
class UsageQuery:
    """by: columns, in their order. since, until: days, both included. tenant: whose rows alone; None for the pool's."""

    by: tuple[str, ...] = DEFAULT_BY
    since: str | None = None
    until: str | None = None
    tenant: str | None = None


def query_from(by: str | None, since: str | None, until: str | None, tenant: str | None = None) -> UsageQuery:
    """Raises UsageError."""
    columns = tuple(dict.fromkeys(name.strip() for name in by.split(","))) if by else DEFAULT_BY
    for name in columns:
        if name not in COLUMNS:
            raise UsageError(said("{by} {name!r}: wanted some of {all}", name=name[:40], all=",".join(COLUMNS)))
    days = [_day(option, text) for option, text in (("since", since), ("until", until))]
    return UsageQuery(columns, days[0], days[1], tenant)


def _day(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            raise ValueError
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(said(f"{{{option}}} {{text!r}}: wanted a day, YYYY-MM-DD", text=text[:40])) from None


def usage_document(query: UsageQuery) -> Script[dict[str, Any]]:
    """`{"rows", "totals"}`; with the pool's cost known, a row `idle` for what nobody paid, so that all sum to it."""
    rows = yield from usage(query.by, query.since, query.until, query.tenant)
    if query.tenant is None:
        rows += yield from _idle(query)
    for row in rows:
        if row.get("started") is not None:
            row["started"] = datetime.fromtimestamp(row["started"], UTC).isoformat(timespec="milliseconds")
    totals: dict[str, Any] = {name: sum(row[name] for row in rows) for name in FIGURES}
    totals["usd"] = sum(row["usd_pico"] for row in rows) / PICO
    for row in rows:
        row["usd"] = row.pop("usd_pico") / PICO
    return {"rows": rows, "totals": totals}


def _idle(query: UsageQuery) -> Script[list[dict[str, Any]]]:
    """The pool's cost less what tenants paid, by day if days are asked for."""
    pool = yield from pool_cost(query.since, query.until)
    if not pool:
        return []
    paid = {row["day"]: row["usd_pico"] for row in (yield from usage(("day",), query.since, query.until))}
    first = pool[0][0]
    idle = {day: cost - paid.get(day, 0) for day, cost in pool}
    for day, dollars in paid.items():  # a day on which no machine was counted
        if day not in idle and day >= first:
            idle[day] = -dollars
    if not {"day", "request"} & set(query.by):
        idle = {"": sum(idle.values())}
    return [
        dict.fromkeys(columns_of(query))
        | ({"tenant": IDLE} if "tenant" in query.by or "request" in query.by else {})
        | ({"day": day} if day else {})
        | dict.fromkeys(FIGURES, 0)
        | {"usd_pico": pico}
        for day, pico in idle.items()
    ]


def columns_of(query: UsageQuery) -> tuple[str, ...]:
    if "request" in query.by:
        return ("tenant", "model", "day", "request", "status", "started", *FIGURES, "usd")
    return (*query.by, *FIGURES, "usd")


def as_csv(document: dict[str, Any], query: UsageQuery) -> str:
    return csv_of(columns_of(query), document["rows"])


def csv_of(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return written.getvalue()


def _plain(value: Any) -> Any:
    """Dollars without an exponent, which spreadsheets misread."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
