"""Reserving: a request takes what it may use, against every limit at once, before the upstream is called."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from halfbyte.serve.ledger.counts import MINUTE_S, Held, add_second, held_by, last_minute, used_by
from halfbyte.serve.ledger.script import Script, day_of, until_next_month_s, until_tomorrow_s
from halfbyte.serve.money import PICO, Price
from halfbyte.serve.tenant import Limits


class Ask(NamedTuple):
    """A request that wants in. prompt: its tokens, or the most that it can have.

    choices: `n`. max_tokens: of one choice, None if not said. room: output tokens of one choice that the model's
    context leaves, None if not known. rough: whether both are bounds that nobody counted.
    """

    id: str
    tenant: str
    model: str
    prompt: int
    choices: int = 1
    max_tokens: int | None = None
    room: int | None = None
    rough: bool = False


@dataclass(frozen=True)
class Standing:
    """The limits that stand closest, for headers. None: not limited."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None


@dataclass(frozen=True)
class Reserved:
    """max_tokens: of one choice, to pass on; None where no limit binds and none was asked for."""

    ask: Ask
    max_tokens: int | None
    output: int
    priority: int
    standing: Standing


@dataclass(frozen=True)
class Refused:
    """limit: name of the one that binds. retry_after_s: when it is worth trying again, in whole seconds."""

    limit: str
    message: str
    retry_after_s: int
    standing: Standing = field(default_factory=Standing)


ROUGH_PART = 1000


@dataclass(frozen=True)
class TooRough:
    """A request that was not counted may take more than one part in ROUGH_PART of what is left of a limit: then it is
    worth counting, as others would be refused for what it does not use. Nothing was reserved."""


@dataclass
class _Check:
    """One limit against one request. left: what may still be taken. wait_s: until some of what is used comes free."""

    name: str
    limit: int
    left: int
    wait_s: int


def reserve(ask: Ask, price: Price, door: str, now: float) -> Script[Reserved | Refused | TooRough]:
    """Take what a request may use, against every limit at once, or say which one forbids it."""
    rows = yield "SELECT limits FROM tenants WHERE name = :name {lock}", {"name": ask.tenant}
    if not rows:
        return Refused("tenant", "this tenant was removed", 0)
    limits = Limits.model_validate_json(rows[0][0])
    held = yield from held_by(ask.tenant)
    minute = yield from last_minute(ask.tenant, now)
    day = day_of(now)
    used = yield from used_by(ask.tenant, (day, day[:7]))
    checks = list(_checks(limits, held, minute, used[day], used[day[:7]], ask, price, now))
    standing = _standing(checks, limits)
    wanted, output = _wanted(ask, checks, limits, price)
    usd = price.most(ask.prompt, output)
    tokens = {"prompt": ask.prompt, "output": output, "tokens": ask.prompt + output, "usd": usd}
    if ask.rough and any(tokens.get(_kind(check.name), 0) * ROUGH_PART > check.left for check in checks):
        return TooRough()
    for check in checks:
        needs = tokens.get(_kind(check.name), 1)
        if needs > check.left:
            possible = needs <= check.limit
            left = _amount(check, max(check.left, 0))
            told = f"{check.name.replace('_', ' ')}: {_amount(check, needs)} wanted, {left} left"
            message = told if possible else f"{told}; the limit of {_amount(check, check.limit)} is smaller"
            return Refused(check.name, message, check.wait_s, standing)
    if output < ask.choices:
        tightest = min(
            (c for c in checks if c.name not in ("requests_per_minute", "concurrency")), key=lambda c: c.left
        )
        return Refused(tightest.name, f"{tightest.name.replace('_', ' ')}: nothing is left", tightest.wait_s, standing)
    yield (
        "INSERT INTO requests (id, door, tenant, model, started, day, price, held_prompt, held_output, held_usd) "
        "VALUES (:id, :door, :tenant, :model, :now, :day, :price, :prompt, :output, :usd)",
        {
            "id": ask.id,
            "door": door,
            "tenant": ask.tenant,
            "model": ask.model,
            "now": now,
            "day": day,
            "price": json.dumps([price.prompt, price.cached, price.output, price.reasoning]),
            "prompt": ask.prompt,
            "output": output,
            "usd": usd,
        },
    )
    yield from add_second(ask.tenant, now, requests=1)
    return Reserved(ask, wanted, output, limits.priority, _after(standing, ask.prompt + output))


def _kind(name: str) -> str:
    """What a limit counts."""
    return {
        "requests_per_minute": "requests",
        "concurrency": "concurrency",
        "input_tokens_per_minute": "prompt",
        "output_tokens_per_minute": "output",
        "tokens_per_day": "tokens",
        "tokens_per_month": "tokens",
    }.get(name, "usd")


def _amount(check: _Check, number: int) -> str:
    return f"{number / PICO:.6g} dollars" if _kind(check.name) == "usd" else str(number)


def _checks(
    limits: Limits,
    held: Held,
    minute: list[tuple[int, int, int, int]],
    day: tuple[int, int, int],
    month: tuple[int, int, int],
    ask: Ask,
    price: Price,
    now: float,
) -> Iterable[_Check]:
    """Every limit that is set. Open requests count in full until they are settled, and their tokens a minute longer."""
    columns = {"requests": 1, "prompt": 2, "output": 3}
    open_tokens = {"requests": 0, "prompt": held.prompt, "output": held.output}
    for name, kind in (
        ("requests_per_minute", "requests"),
        ("input_tokens_per_minute", "prompt"),
        ("output_tokens_per_minute", "output"),
    ):
        limit = getattr(limits, name)
        if limit is not None:
            spent = sum(row[columns[kind]] for row in minute)
            wait = _until_free(minute, columns[kind], now) if spent else 1
            yield _Check(name, limit, limit - spent - open_tokens[kind], wait)
    if limits.concurrency is not None:
        yield _Check("concurrency", limits.concurrency, limits.concurrency - held.requests, 1)
    for period, spent_in, wait in (("day", day, until_tomorrow_s(now)), ("month", month, until_next_month_s(now))):
        tokens = getattr(limits, f"tokens_per_{period}")
        open_all = held.prompt + held.output
        if tokens is not None:
            left = tokens - spent_in[1] - open_all
            yield _Check(f"tokens_per_{period}", tokens, left, 1 if open_all and spent_in[1] < tokens else wait)
        dollars = getattr(limits, f"usd_per_{period}")
        if dollars is not None:
            pico = int(dollars * PICO)
            left = pico - spent_in[2] - held.usd
            yield _Check(f"usd_per_{period}", pico, left, 1 if held.usd and spent_in[2] < pico else wait)


def _until_free(minute: list[tuple[int, int, int, int]], column: int, now: float) -> int:
    """Whole seconds until the oldest second that took some of it is no longer within the last sixty."""
    oldest = next(row[0] for row in minute if row[column])
    return max(1, math.ceil(oldest + MINUTE_S + 1 - now))


def _wanted(ask: Ask, checks: list[_Check], limits: Limits, price: Price) -> tuple[int | None, int]:
    """(max_tokens of one choice to pass on, output tokens to reserve for all choices)."""
    if ask.max_tokens is not None:
        each = ask.max_tokens if ask.room is None else min(ask.max_tokens, ask.room)
        return ask.max_tokens, each * ask.choices
    left = []
    for check in checks:
        kind = _kind(check.name)
        if kind == "output":
            left.append(check.left)
        elif kind == "tokens":
            left.append(check.left - ask.prompt)
        elif kind == "usd":
            affordable = price.affordable_output(ask.prompt, check.left)
            if affordable is not None:
                left.append(affordable)
    if not left:
        return None, (ask.room or 0) * ask.choices if ask.room else ask.choices
    each = max(min(left), 0) // ask.choices
    if ask.room is not None and ask.room <= each:
        return None, ask.room * ask.choices
    return each, each * ask.choices


def _standing(checks: list[_Check], limits: Limits) -> Standing:
    """The tightest of the limits on requests, and of those on tokens."""
    requests = [check for check in checks if _kind(check.name) in ("requests", "concurrency")]
    tokens = [check for check in checks if _kind(check.name) in ("prompt", "output", "tokens")]
    a = min(requests, key=lambda check: check.left, default=None)
    b = min(tokens, key=lambda check: check.left, default=None)
    return Standing(
        None if a is None else a.limit,
        None if a is None else max(a.left, 0),
        None if b is None else b.limit,
        None if b is None else max(b.left, 0),
    )


def _after(standing: Standing, tokens: int) -> Standing:
    """What is left once a request was taken in."""
    requests, left = standing.remaining_requests, standing.remaining_tokens
    return Standing(
        standing.limit_requests,
        None if requests is None else max(requests - 1, 0),
        standing.limit_tokens,
        None if left is None else max(left - tokens, 0),
    )
