"""A/A: one model against itself with other seeds. What differs is noise, and no suite decides what lies inside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from halfbyte.errors import DataError
from halfbyte.evaluate.judging import judge
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.numbers.agreement import flip_rate, intraclass_correlation, within_variance
from halfbyte.numbers.resolution import Z_ONE_SIDED, smallest_margin


@dataclass(frozen=True)
class SuiteNoise:
    """One suite. n: items with every run scored. accuracy: percent. flip_rate: chance that two runs of an item differ.

    intraclass_correlation: share of a run's variance that is the items' own; None where nothing varies.
    smallest_margin: points that a single run of each arm decides 80 % of the time if there is no difference.
    """

    name: str
    n: int
    runs: int
    accuracy: float
    flip_rate: float
    intraclass_correlation: float | None
    smallest_margin: float


@dataclass(frozen=True)
class Noise:
    """verdicts: of each run against the one before it, at the margin: FAIL is false.

    smallest_margin: of the mean over suites.
    """

    suites: tuple[SuiteNoise, ...]
    smallest_margin: float
    margin: float
    verdicts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "suites": [dict(vars(suite)) for suite in self.suites],
            "smallest_margin": self.smallest_margin,
            "margin": self.margin,
            "verdicts": list(self.verdicts),
            "false_verdicts": self.verdicts.count("FAIL"),
        }


def noise(arm: Arm, margin: float) -> Noise:
    """Of one arm with several runs of each item. Raises DataError for fewer than two runs that were scored."""
    suites = tuple(_noise_of(name, samples) for name, samples in arm.suites.items())
    pooled = math.sqrt(sum(suite.smallest_margin**2 for suite in suites)) / len(suites)
    runs = [_run(arm, number) for number in range(1, min(suite.runs for suite in suites) + 1)]
    verdicts = tuple(judge(second, first, margin).verdict for first, second in pairwise(runs))
    return Noise(suites, pooled, margin, verdicts)


def _noise_of(name: str, samples: Sequence[Sample]) -> SuiteNoise:
    runs = max(sample.epoch for sample in samples)
    by_item: dict[str, list[float]] = {}
    for sample in samples:
        if sample.state == "scored" and sample.score is not None:
            by_item.setdefault(sample.key, []).append(sample.score)
    whole = [scores for scores in by_item.values() if len(scores) == runs]
    if runs < 2 or not whole:
        raise DataError(f"suite {name!r}: no item was scored in two runs")
    scores = np.array(whole, np.float64)
    n = len(scores)
    nothing_flips = Z_ONE_SIDED**2 / (n + Z_ONE_SIDED**2)
    return SuiteNoise(
        name=name,
        n=n,
        runs=runs,
        accuracy=100 * float(scores.mean()),
        flip_rate=flip_rate(scores),
        intraclass_correlation=intraclass_correlation(scores),
        smallest_margin=100 * max(smallest_margin(2 * within_variance(scores), n), nothing_flips),
    )


def _run(arm: Arm, number: int) -> Arm:
    suites: Mapping[str, list[Sample]] = {
        name: [sample for sample in samples if sample.epoch == number] for name, samples in arm.suites.items()
    }
    return Arm(arm.harness, dict(suites), arm.conditions)
