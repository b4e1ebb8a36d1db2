"""Both arms asked batch by batch until the margin is decided: `--sequential`.

Items (clusters, where items share a source) are asked in an order drawn once from the seed. After each batch a
confidence sequence says whether the loss is ruled out or certain; it holds at every look, so stopping costs nothing.
The whole of several suites is judged by the mean over suites, round by round, each suite's own claim at α over their
number.
"""

import math
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from halfbyte.evaluate.judging import ALPHA, MOST_TRUNCATED, Outcome, check_margin
from halfbyte.evaluate.running.arms import ARMS, Answers, Asked, ask_batch, check_judge, claim, opened, read
from halfbyte.evaluate.running.asking import is_finished, needs_inspect
from halfbyte.evaluate.running.suite import AskedSuite
from halfbyte.evaluate.running.targets import Target
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.numbers.betting import lower_bound, upper_bound
from halfbyte.progress import Progress

LOOKS, FEWEST = 20, 10
"""Batches of a whole run; units of a batch at least."""
Unit = list[dict[str, Any]]


@dataclass(frozen=True)
class Bounds:
    """A difference's bounds, in shares, at this look."""

    low: float
    high: float

    def outcome(self, margin: float) -> Outcome:
        return "PASS" if self.low > -margin else "FAIL" if self.high < -margin else "INCONCLUSIVE"


@dataclass(frozen=True)
class Look:
    """units: asked so far, of the longest suite. bounds: by suite at α over their number, and at α. pooled: of the
    mean over suites. decided: nothing more need be asked."""

    units: int
    of: int
    bounds: dict[str, tuple[Bounds, Bounds]]
    pooled: Bounds
    verdict: Outcome

    @property
    def decided(self) -> bool:
        return self.verdict != "INCONCLUSIVE"


def sequentially(asked: Asked, work: Path, margin: float, progress: Progress) -> tuple[Answers, Look]:
    """Ask until decided, or until nothing is left. margin: points. Raises DataError, OutputError."""
    check_margin(margin)
    needs_inspect()
    conditions = asked.conditions() | {"sequential": {"margin": margin, "looks": LOOKS}}
    claim(work, conditions)
    order = {suite.name: units_of(suite) for suite in asked.suites}
    longest = max(map(len, order.values()))
    step = max(FEWEST, math.ceil(longest / LOOKS))
    batches: list[str] = []
    with ExitStack() as stack:
        where: dict[str, Target] = {}
        for start in range(0, longest, step):
            batches.append(f"batch-{len(batches):03}")
            parts = {
                name: [item for unit in units[start : start + step] for item in unit] for name, units in order.items()
            }
            for suite in asked.suites:
                for arm in ARMS:
                    logs = work / arm / suite.name / batches[-1]
                    if parts[suite.name] and not is_finished(logs):
                        where = where or stack.enter_context(opened(asked, ARMS, progress))
                        ask_batch(asked, suite, parts[suite.name], where, logs, arm, progress)
            arms = {arm: read(asked, work, arm, batches) for arm in ARMS}
            found = look(order, start + step, arms, margin / 100)
            progress.note(
                f"{min(start + step, longest)} of {longest}: difference above {100 * found.pooled.low:+.2f} and below "
                f"{100 * found.pooled.high:+.2f} points"
            )
            if found.decided:
                break
    check_judge(arms)
    return Answers(arms, conditions, work), found


def units_of(suite: AskedSuite) -> list[Unit]:
    """Items, or all of a cluster together, in an order drawn from the seed."""
    units: dict[str, Unit] = {}
    for item in suite.items:
        cluster = item.get("cluster")
        units.setdefault(f"item {item['id']}" if cluster is None else f"cluster {cluster}", []).append(item)
    names = sorted(units)
    random.Random(f"{suite.sampling.seed} {suite.name}").shuffle(names)
    return [units[name] for name in names]


def look(order: dict[str, list[Unit]], asked: int, arms: dict[str, Arm], margin: float) -> Look:
    """What the first `asked` units of each suite say. margin: a share."""
    bounds, worst, best, largest = {}, [], [], []
    for name, units in order.items():
        ours, theirs = (_means(arms[arm].suites[name]) for arm in ARMS)
        size = sum(map(len, units)) / len(units)
        bound = max(map(len, units)) / size
        low, high = (
            np.array([_sum(unit, ours, theirs, missing) / size for unit in units[:asked]]) for missing in (-1.0, 1.0)
        )
        bounds[name] = (
            _bounds(low, high, ALPHA / len(order), len(units), bound),
            _bounds(low, high, ALPHA, len(units), bound),
        )
        worst.append(low)
        best.append(high)
        largest.append(bound)
    if len(order) == 1:
        pooled = next(iter(bounds.values()))[1]
    else:
        rounds = min(map(len, worst))
        low, high = (np.mean([one[:rounds] for one in side], axis=0) for side in (worst, best))
        pooled = _bounds(low, high, ALPHA, min(map(len, order.values())), float(np.mean(largest)))
    verdict: Outcome = "INCONCLUSIVE" if _is_truncated(arms) else pooled.outcome(margin)
    longest = max(map(len, order.values()))
    return Look(min(asked, longest), longest, bounds, pooled, verdict)


def _bounds(worst: Any, best: Any, alpha: float, horizon: int, bound: float) -> Bounds:
    return Bounds(lower_bound(worst, alpha, horizon, bound), upper_bound(best, alpha, horizon, bound))


def _means(samples: Sequence[Sample]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        if sample.state == "scored" and sample.score is not None:
            found.setdefault(sample.item, []).append(sample.score)
    return {item: sum(scores) / len(scores) for item, scores in found.items()}


def _sum(unit: Unit, ours: dict[str, float], theirs: dict[str, float], missing: float) -> float:
    """Of the differences inside one unit; `missing` for a pair that lacks a score."""
    ids = [str(item["id"]) for item in unit]
    return sum(ours[one] - theirs[one] if one in ours and one in theirs else missing for one in ids)


def _is_truncated(arms: dict[str, Arm]) -> bool:
    return any(
        sum(sample.truncated for sample in samples) > MOST_TRUNCATED * len(samples)
        for arm in arms.values()
        for samples in arm.suites.values()
    )
