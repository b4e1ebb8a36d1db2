"""What is reserved, what was used, and what the last minute saw."""

from collections.abc import Iterable
from typing import NamedTuple

from halfbyte.serve.ledger.script import Script

MINUTE_S = 60
KEPT_SECONDS = 3600
"""How long rows of `seconds` are kept: they matter for a minute."""


class Held(NamedTuple):
    """Of open requests: how many, and the tokens and pico-dollars reserved for them."""

    requests: int
    prompt: int
    output: int
    usd: int


def held_by(tenant: str) -> Script[Held]:
    rows = yield (
        "SELECT COUNT(*), COALESCE(SUM(held_prompt), 0), COALESCE(SUM(held_output), 0), COALESCE(SUM(held_usd), 0) "
        "FROM requests WHERE tenant = :tenant AND settled = 0",
        {"tenant": tenant},
    )
    return Held(*(int(number) for number in rows[0]))


def used_by(tenant: str, periods: Iterable[str]) -> Script[dict[str, tuple[int, int, int]]]:
    """(requests, tokens, pico-dollars) by period."""
    found = {}
    for period in periods:
        rows = yield (
            "SELECT requests, tokens, usd FROM used WHERE tenant = :tenant AND period = :period",
            {"tenant": tenant, "period": period},
        )
        found[period] = (int(rows[0][0]), int(rows[0][1]), int(rows[0][2])) if rows else (0, 0, 0)
    return found


def last_minute(tenant: str, now: float) -> Script[list[tuple[int, int, int, int]]]:
    """(second, requests, prompt, output) of what may lie within 60 seconds, oldest first."""
    rows = yield (
        "SELECT second, requests, prompt, output FROM seconds WHERE tenant = :tenant AND second >= :since "
        "ORDER BY second",
        {"tenant": tenant, "since": int(now) - MINUTE_S},
    )
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in rows]


def add_second(tenant: str, now: float, requests: int = 0, prompt: int = 0, output: int = 0) -> Script[None]:
    yield (
        "INSERT INTO seconds (tenant, second, requests, prompt, output) "
        "VALUES (:tenant, :second, :requests, :prompt, :output) ON CONFLICT (tenant, second) DO UPDATE SET "
        "requests = seconds.requests + excluded.requests, prompt = seconds.prompt + excluded.prompt, "
        "output = seconds.output + excluded.output",
        {"tenant": tenant, "second": int(now), "requests": requests, "prompt": prompt, "output": output},
    )
