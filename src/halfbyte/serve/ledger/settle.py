"""Settling: a reservation ends once, charged for what was delivered; whatever died is settled by who comes after."""

import json

from halfbyte.serve.ledger.counts import KEPT_SECONDS, add_second
from halfbyte.serve.ledger.script import Script, day_of
from halfbyte.serve.money import PICO, Price, Tokens


def checkpoint(id: str, tokens: Tokens) -> Script[None]:
    """What has been delivered so far: what is charged if nobody lives to settle it."""
    yield (
        "UPDATE requests SET prompt = :prompt, output = :output, reasoning = :reasoning WHERE id = :id AND settled = 0",
        {"id": id, "prompt": tokens.prompt, "output": tokens.output, "reasoning": tokens.reasoning},
    )


def settle(id: str, tokens: Tokens | None, status: str, now: float) -> Script[bool]:
    """End a reservation, once. tokens: None charges what the last checkpoint saw. False if it was settled before."""
    rows = yield (
        "SELECT tenant, day, price, prompt, cached, output, reasoning FROM requests "
        "WHERE id = :id AND settled = 0 {lock}",
        {"id": id},
    )
    if not rows:
        return False
    tenant, day, price, *seen = rows[0]
    charged = tokens if tokens is not None else Tokens(*(int(number) for number in seen))
    usd = Price(*json.loads(price)).of(charged)
    done = yield (
        "UPDATE requests SET settled = 1, status = :status, ended = :now, prompt = :prompt, cached = :cached, "
        "output = :output, reasoning = :reasoning, usd = :usd WHERE id = :id AND settled = 0 RETURNING id",
        {
            "id": id,
            "status": status,
            "now": now,
            "prompt": charged.prompt,
            "cached": charged.cached,
            "output": charged.output,
            "reasoning": charged.reasoning,
            "usd": usd,
        },
    )
    if not done:
        return False
    for period in (day, day[:7]):
        yield (
            "INSERT INTO used (tenant, period, requests, tokens, usd) VALUES (:tenant, :period, 1, :tokens, :usd) "
            "ON CONFLICT (tenant, period) DO UPDATE SET requests = used.requests + 1, "
            "tokens = used.tokens + excluded.tokens, usd = used.usd + excluded.usd",
            {"tenant": tenant, "period": period, "tokens": charged.total, "usd": usd},
        )
    if charged.total:
        yield from add_second(tenant, now, prompt=charged.prompt, output=charged.output)
    return True


def open_requests(door: str | None = None) -> Script[list[str]]:
    """Ids of reservations that are open: all, or those of one door."""
    if door is not None:
        rows = yield "SELECT id FROM requests WHERE settled = 0 AND door = :door", {"door": door}
    else:
        rows = yield "SELECT id FROM requests WHERE settled = 0", {}
    return [id for (id,) in rows]


def doors_with_open_requests() -> Script[tuple[list[str], dict[str, float]]]:
    """Doors that have requests open, and when each door was last heard of."""
    rows = yield "SELECT DISTINCT door FROM requests WHERE settled = 0", {}
    beats = yield "SELECT id, beat FROM doors", {}
    return [door for (door,) in rows], {door: float(last) for door, last in beats}


def beat(door: str, now: float, elapsed_s: float, usd_per_hour: float | None) -> Script[None]:
    """A door lives: other doors leave its reservations alone. The pool's time and cost grow by what passed."""
    yield (
        "INSERT INTO doors (id, beat) VALUES (:id, :now) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat",
        {"id": door, "now": now},
    )
    yield "DELETE FROM seconds WHERE second < :old", {"old": int(now) - KEPT_SECONDS}
    if usd_per_hour is not None and elapsed_s > 0:
        yield (
            "INSERT INTO pool (day, seconds, usd) VALUES (:day, :seconds, :usd) ON CONFLICT (day) DO UPDATE SET "
            "seconds = pool.seconds + excluded.seconds, usd = pool.usd + excluded.usd",
            {"day": day_of(now), "seconds": elapsed_s, "usd": round(usd_per_hour * elapsed_s / 3600 * PICO)},
        )


def leave(door: str) -> Script[None]:
    yield "DELETE FROM doors WHERE id = :id", {"id": door}
