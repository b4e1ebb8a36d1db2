"""The difference of two models on the same items: its error, its interval, and how sure a margin is.

One item's difference is the candidate's score less the baseline's, repeats averaged inside the item first: items are
the sample, never items times repeats. Items that share a source (a passage, a parent problem) are clusters, and then
clusters are the sample. Binary single runs take Tango's score interval, which stays honest near 0 and 100 %.

Sources: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design"; McNemar 1947; Holm 1979; the cluster-robust variance with C / (C - 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from halfbyte.numbers.resolution import Z_ONE_SIDED
from halfbyte.numbers.student import t_quantile, two_sided_p

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.90
"""Two-sided: each end is a one-sided bound at 5 %, as non-inferiority wants it."""


@dataclass(frozen=True)
class Pairs:
    """candidate, baseline: mean score of each item, 0 to 1, float64 [n]. clusters: a label for each item, or None.

    binary: every score is one run's right or wrong.
    """

    candidate: Floats
    baseline: Floats
    clusters: Sequence[str] | None = None
    binary: bool = True

    @property
    def n(self) -> int:
        return len(self.candidate)

    @cached_property
    def differences(self) -> Floats:
        return self.candidate - self.baseline

    @property
    def mean(self) -> float:
        return float(self.differences.mean())

    @property
    def is_scored(self) -> bool:
        """Whether Tango's score interval applies."""
        return self.binary and self.clusters is None

    @cached_property
    def sums(self) -> Floats:
        """By cluster (or item), the summed deviations from the mean."""
        off = self.differences - self.mean
        if self.clusters is None:
            return off
        _, which = np.unique(np.asarray(self.clusters), return_inverse=True)
        return np.bincount(which, weights=off).astype(np.float64)

    @property
    def units(self) -> int:
        """Independent units: clusters, or items."""
        return len(self.sums)

    @property
    def standard_error(self) -> float:
        """sqrt(C / (C - 1) sum of squared cluster sums) / n; infinite for a single unit."""
        if self.units < 2:
            return math.inf
        return sqrt(self.units / (self.units - 1) * float((self.sums**2).sum())) / self.n

    @property
    def discordant(self) -> tuple[int, int]:
        """Items that only the candidate gets right, and only the baseline."""
        return int((self.differences > 0).sum()), int((self.differences < 0).sum())

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Two-sided, within -1 to 1."""
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        if self.is_scored:
            won, lost = self.discordant
            return tango_interval(won, lost, self.n, z)
        if self.units < 2:
            return -1.0, 1.0
        error = self.standard_error
        half = t_quantile(confidence, self.units - 1) * error if error > 0 else z * z / (self.units + z * z)
        return max(self.mean - half, -1.0), min(self.mean + half, 1.0)

    def p_above(self, difference: float) -> float:
        """One-sided p of the hypothesis that the true difference is at most `difference`: small speaks against it.

        It is under 5 % exactly where the low end of the 90 % interval lies above.
        """
        if self.is_scored:
            won, lost = self.discordant
            return 1 - NormalDist().cdf(tango_statistic(won, lost, self.n, difference))
        if self.units < 2:
            return 1.0
        error = self.standard_error
        if error == 0:
            error = (self.interval()[1] - self.mean) / Z_ONE_SIDED
            return 1 - NormalDist().cdf((self.mean - difference) / error)
        t = (self.mean - difference) / error
        tail = two_sided_p(abs(t), self.units - 1) / 2
        return tail if t > 0 else 1 - tail

    def p_below(self, difference: float) -> float:
        """The same of the hypothesis that it is at least `difference`. One unit speaks against neither."""
        return 1.0 if self.units < 2 and not self.is_scored else 1 - self.p_above(difference)

    def mcnemar_p(self) -> float:
        """Exact two-sided p of equal accuracy, from the items that differ."""
        won, lost = self.discordant
        total, least = won + lost, min(won, lost)
        return min(1.0, 2 * sum(comb(total, k) for k in range(least + 1)) / 2**total) if total else 1.0


def tango_statistic(won: int, lost: int, n: int, difference: float) -> float:
    """Score statistic of a true difference: standard normal if it is true. won, lost: discordant pairs of n."""
    if abs(difference) >= 1:
        return -math.copysign(math.inf, difference)
    if abs(difference) < 1e-12:
        difference = 0.0
    a = 2.0 * n
    b = -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    distance = won - lost - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / sqrt(variance)


def tango_interval(won: int, lost: int, n: int, z: float) -> tuple[float, float]:
    """The differences whose statistic lies within z: by bisection, as the statistic falls with the difference."""

    def where(level: float) -> float:
        low, high = -1.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if tango_statistic(won, lost, n, middle) > level else (low, middle)
        return (low + high) / 2

    return where(z), where(-z)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: the k-th smallest of m times (m - k + 1), never falling."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def bca_interval(pairs: Pairs, confidence: float = CONFIDENCE, resamples: int = 4000) -> tuple[float, float] | None:
    """Bias-corrected accelerated bootstrap over items (clusters), seeded; None where nothing varies or one unit is
    all there is."""
    from scipy.stats import bootstrap

    if pairs.units < 3 or float(np.ptp(pairs.differences)) == 0:
        return None
    if pairs.clusters is None:
        samples: tuple[Floats, ...] = (pairs.differences,)

        def mean(values: Floats, axis: int = -1) -> Floats:
            return np.asarray(values.mean(axis=axis))

        result = bootstrap(
            samples, mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=20260101
        )
    else:
        _, which = np.unique(np.asarray(pairs.clusters), return_inverse=True)
        totals, counts = np.bincount(which, weights=pairs.differences), np.bincount(which).astype(np.float64)

        def ratio(total: Floats, count: Floats, axis: int = -1) -> Floats:
            return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

        result = bootstrap(
            (totals, counts),
            ratio,
            paired=True,
            confidence_level=confidence,
            n_resamples=resamples,
            method="BCa",
            rng=20260101,
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return None if math.isnan(low) or math.isnan(high) else (low, high)
