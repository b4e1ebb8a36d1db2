"""Prices and sums of money, in whole pico-dollars: exact for prices of up to six decimals a million tokens."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from halfbyte.disk import read_text
from halfbyte.errors import UsageError, said

PICO = 10**12
KINDS = ("prompt", "cached", "output", "reasoning")
MOST_USD_PER_MILLION = Decimal(10) ** 5
PRICE_LIMIT_BYTES = 10_000_000


class Tokens(NamedTuple):
    """What one request took. cached is part of prompt, reasoning part of output."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.output


@dataclass(frozen=True)
class Price:
    """Pico-dollars of one token of each kind."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def of(self, tokens: Tokens) -> int:
        """Pico-dollars of a request: each kind apart, what is cached or reasoning not twice."""
        return (
            (tokens.prompt - tokens.cached) * self.prompt
            + tokens.cached * self.cached
            + (tokens.output - tokens.reasoning) * self.output
            + tokens.reasoning * self.reasoning
        )

    def most(self, prompt: int, output: int) -> int:
        """The most that a request of so many tokens can cost."""
        return prompt * max(self.prompt, self.cached) + output * max(self.output, self.reasoning)

    def affordable_output(self, prompt: int, pico: int) -> int | None:
        """Output tokens that `pico` pays for beside the prompt; None for any number, where output is free."""
        each = max(self.output, self.reasoning)
        left = pico - self.most(prompt, 0)
        if left < 0:
            return 0
        return left // each if each else None


FREE = Price()


@dataclass(frozen=True)
class Prices:
    """Prices by served model. pool_usd_per_hour: what the machines cost, used or idle; None if not known."""

    models: dict[str, Price]
    pool_usd_per_hour: float | None = None


PLANNED = {"prompt": "input", "cached": "cached_input", "output": "output", "reasoning": "reasoning"}
"""Kind -> its name in a plan.json."""


def read_prices(path: Path, served: str) -> Prices:
    """From a price file, or a plan.json whose prices are those of the `served` model. Raises UsageError."""
    try:
        document = json.loads(read_text(path, PRICE_LIMIT_BYTES, UsageError), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as prices: {str(error)[:200]}") from None
    table = document.get("usd_per_million_tokens") if isinstance(document, dict) else None
    cost = document.get("cost") if isinstance(document, dict) else None
    if table is None and isinstance(cost, dict):
        planned = cost.get("usd_per_million")
        if not isinstance(planned, dict) or not planned:
            raise UsageError(f"{path}: this plan has no prices", hint=said("plan with {price}, dollars per GPU-hour"))
        table = {served: {kind: planned[name] for kind, name in PLANNED.items() if name in planned}}
        document = {"usd_per_hour": cost.get("pool_per_hour")}
    if not isinstance(table, dict):
        raise UsageError(
            f"{path}: has no usd_per_million_tokens",
            hint='{"usd_per_million_tokens": {"MODEL": {"prompt": 1, "cached": 0.1, "output": 4, "reasoning": 4}}}',
        )
    models = {str(model): _price(value, f"{path}: {str(model)[:80]}") for model, value in table.items()}
    hourly = document.get("usd_per_hour")
    if hourly is not None and (not isinstance(hourly, int | Decimal) or isinstance(hourly, bool) or hourly < 0):
        raise UsageError(f"{path}: usd_per_hour is {str(hourly)[:40]!r}, wanted a number of dollars")
    return Prices(models, None if hourly is None else float(hourly))


def _price(value: Any, where: str) -> Price:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: wanted a price for each of {', '.join(KINDS)}")
    unknown = set(value) - set(KINDS)
    missing = [kind for kind in KINDS if kind not in value]
    if unknown or missing:
        what = f"unknown kind {min(unknown)[:40]!r}" if unknown else f"no price for {missing[0]}"
        raise UsageError(f"{where}: {what}", hint=f"wanted all of {', '.join(KINDS)}, in dollars a million tokens")
    return Price(**{kind: _pico_per_token(value[kind], f"{where}: {kind}") for kind in KINDS})


def _pico_per_token(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise UsageError(f"{where}: {str(value)[:40]!r} is no price")
    dollars = Decimal(value)
    if not dollars.is_finite() or not 0 <= dollars <= MOST_USD_PER_MILLION:
        raise UsageError(f"{where}: {dollars} dollars a million tokens, wanted 0 to {MOST_USD_PER_MILLION}")
    pico = dollars * 10**6  # dollars / 10^6 tokens, in 10^-12 dollars
    if pico != pico.to_integral_value():
        raise UsageError(f"{where}: {dollars} has more than six decimals")
    return int(pico)


def usd(pico: int) -> float:
    """Dollars, for people and JSON."""
    return pico / PICO
