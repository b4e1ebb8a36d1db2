"""`evaluate --power`: what a suite can decide, said before any GPU hour is spent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.errors import UsageError, said
from halfbyte.evaluate.cost import PlannedSpeed, read_speed
from halfbyte.evaluate.judging import check_margin
from halfbyte.evaluate.suites import DEFAULT_SUITE, Suite, suites_of
from halfbyte.numbers.resolution import items_needed, smallest_drop, smallest_margin

DEFAULT_CORRELATION = 0.8
BETWEEN_ITEMS = 0.5
"""The share of an item's variance that repeats cannot shrink: that between items. Assumed, not known beforehand."""
ARMS = 2


@dataclass(frozen=True)
class SuitePower:
    """One suite. accuracy in percent, variance of one item's difference (0 to 1), drops and margins in points."""

    name: str
    items: int
    repeats: int
    accuracy: float
    variance: float
    smallest_drop: float
    smallest_margin: float
    items_needed: int
    decidable: bool
    gpu_hours: float | None
    usd: float | None

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Power:
    """pooled_margin: points that the mean over suites decides."""

    decidable: bool
    assumptions: dict[str, Any]
    suites: tuple[SuitePower, ...]
    pooled_margin: float

    def as_json(self) -> dict[str, Any]:
        return {
            "decidable": self.decidable,
            "pooled_margin": self.pooled_margin,
            "assumptions": self.assumptions,
            "suites": [suite.as_json() for suite in self.suites],
        }


def power(
    suite: str = DEFAULT_SUITE,
    *,
    margin: float,
    epochs: int = 1,
    correlation: float = DEFAULT_CORRELATION,
    discordance: float | None = None,
    limit: int | None = None,
    plan: str | Path | None = None,
) -> Power:
    """Judge a suite, by name or file, before it is run.

    margin: points that the candidate may lose. correlation: between the two models' items, from which the variance of
    an item's difference follows, unless discordance (the share of items that one of them alone gets right) is given.
    limit: items of each suite. plan: a plan.json, for GPU hours and money. Raises UsageError, DataError.
    """
    return power_of(
        suites_of(suite),
        margin=margin,
        epochs=epochs,
        correlation=correlation,
        discordance=discordance,
        limit=limit,
        plan=plan,
    )


def power_of(
    suites: Sequence[Suite],
    *,
    margin: float,
    epochs: int = 1,
    correlation: float = DEFAULT_CORRELATION,
    discordance: float | None = None,
    limit: int | None = None,
    plan: str | Path | None = None,
) -> Power:
    """`power` of suites whose items are counted."""
    check_margin(margin)
    if not 0 <= correlation < 1:
        raise UsageError(said("{correlation} {value:g}: wanted 0 to less than 1", value=correlation))
    if discordance is not None and not 0 < discordance <= 1:
        raise UsageError(said("{discordance} {value:g}: wanted more than 0 and at most 1", value=discordance))
    for name, count in (("epochs", epochs), ("limit", limit)):
        if count is not None and count < 1:
            raise UsageError(said(f"{{{name}}} {{value}}: wanted at least 1", value=count))
    speed = None if plan is None else read_speed(Path(plan))
    found = tuple(_power_of(one, margin, epochs, correlation, discordance, limit, speed) for one in suites)
    assumptions: dict[str, Any] = {
        "correlation": correlation,
        "discordance": discordance,
        "between_items": BETWEEN_ITEMS,
        "accuracy_assumed": [one.name for one in suites if not one.known],
        "output_tokens_per_answer": None if speed is None else speed.output_tokens,
    }
    return Power(all(one.decidable for one in found), assumptions, found, _pooled_margin(found))


def _pooled_margin(found: Sequence[SuitePower]) -> float:
    """Of the mean over suites."""
    return math.sqrt(sum(one.smallest_margin**2 for one in found)) / len(found)


def item_variance(accuracy: float, epochs: int, correlation: float, discordance: float | None) -> float:
    """Variance of one item's difference, 0 to 1: 2 p (1 - p) (1 - r) for a single run, or the discordance; repeats
    average the part within an item away, taken for half of it."""
    single = discordance if discordance is not None else 2 * accuracy * (1 - accuracy) * (1 - correlation)
    return single * (BETWEEN_ITEMS + (1 - BETWEEN_ITEMS) / epochs)


def _power_of(
    suite: Suite,
    margin: float,
    epochs: int,
    correlation: float,
    discordance: float | None,
    limit: int | None,
    speed: PlannedSpeed | None,
) -> SuitePower:
    items = suite.items if limit is None else min(suite.items, limit)
    variance = item_variance(suite.accuracy, epochs, correlation, discordance)
    least = 100 * smallest_margin(variance, items)
    answers = items * epochs * ARMS
    return SuitePower(
        name=suite.name,
        items=items,
        repeats=epochs,
        accuracy=100 * suite.accuracy,
        variance=variance,
        smallest_drop=100 * smallest_drop(variance, items),
        smallest_margin=least,
        items_needed=items_needed(variance, margin / 100),
        decidable=least <= margin,
        gpu_hours=None if speed is None else speed.gpu_hours(answers),
        usd=None if speed is None else speed.usd(answers),
    )


def undecidable(found: Sequence[SuitePower]) -> str:
    """Why a run would not decide, in one line."""
    worst = max(found, key=lambda suite: suite.smallest_margin)
    return (
        f"{worst.name}: {worst.items} items decide margins from {worst.smallest_margin:.1f} points on; this one wants "
        f"{worst.items_needed:,} items"
    )
