"""PASS, FAIL or INCONCLUSIVE: two arms of answers against a margin that was stated beforehand.

PASS: the low end of the 90 % interval of candidate less baseline lies above -margin. FAIL: its high end lies below. Of
several suites each claim is adjusted by Holm, and the whole is judged by the mean over suites.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from halfbyte.errors import DataError, UsageError, said
from halfbyte.evaluate.answer_rates import answer_rates
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.numbers.paired import Pairs, bca_interval, holm
from halfbyte.numbers.resolution import Z_ONE_SIDED

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
ALPHA = 0.05
MOST_TRUNCATED = 0.02
"""Above this share of truncated answers in either arm nothing is said: they read as low accuracy."""


FEW_CLUSTERS = 100
"""Below this many, where nearly all answers are right or wrong, t with C - 1 degrees of freedom claims too much: by
simulation up to 9.3 % false passes at 20 clusters, 7.3 % at 50."""


@dataclass(frozen=True)
class SuiteVerdict:
    """One suite, in points. n: pairs scored on both sides. bounds: the verdicts if every missing score were the worst
    and the best for the candidate. answers: length, truncation, refusals, unreadable ones, each with its interval.
    is_truncated: too many answers were cut short in an arm to say anything."""

    name: str
    verdict: Outcome
    unadjusted: Outcome
    n: int
    candidate: float
    baseline: float
    difference: float
    standard_error: float
    interval: tuple[float, float]
    bca: tuple[float, float] | None
    margin: float
    truncated: dict[str, int]
    failed: dict[str, int]
    unscorable: dict[str, int]
    missing: int
    mcnemar_p: float | None
    clusters: int | None
    answers: dict[str, Any]
    is_truncated: bool

    @property
    def warning(self) -> str | None:
        """What a reader should know of the interval; None for nothing."""
        if self.clusters is None or self.clusters >= FEW_CLUSTERS:
            return None
        return f"{self.clusters} clusters are few: with nearly all answers right or wrong, a PASS is false too often"

    def as_json(self) -> dict[str, Any]:
        document = {name: value for name, value in vars(self).items() if name != "is_truncated"}
        document["interval"] = list(self.interval)
        document["bca"] = None if self.bca is None else list(self.bca)
        document["warning"] = self.warning
        document["standard_error"] = self.standard_error if math.isfinite(self.standard_error) else None
        return document


@dataclass(frozen=True)
class Judgement:
    """The whole. pooled: the mean over suites; with one suite it is that suite."""

    verdict: Outcome
    suites: tuple[SuiteVerdict, ...]
    pooled: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "suites": [suite.as_json() for suite in self.suites],
            "pooled": self.pooled,
        }


def judge(candidate: Arm, baseline: Arm, margin: float) -> Judgement:
    """Judge two arms. margin: points, stated beforehand. Raises DataError where the arms cannot be compared."""
    check_margin(margin)
    check_comparable(candidate, baseline)
    found = [_Judged.of(name, candidate.suites[name], baseline.suites[name], margin) for name in candidate.suites]
    passes = holm([one.p_pass for one in found])
    fails = holm([one.p_fail for one in found])
    suites = tuple(one.verdict(p, q) for one, p, q in zip(found, passes, fails, strict=True))
    pooled = _pooled(found, suites, margin)
    return Judgement(pooled["verdict"], suites, pooled)


def check_margin(margin: float) -> None:
    """Raise UsageError for one that is none."""
    if not 0 < margin <= 100:
        raise UsageError(said("{margin} {value:g}: wanted points, more than 0 and at most 100", value=margin))


def check_comparable(candidate: Arm, baseline: Arm) -> None:
    """Raise DataError naming what differs: harness, suites, or the conditions of one."""
    if candidate.harness != baseline.harness:
        raise DataError(f"the arms were run by {candidate.harness} and {baseline.harness}: scores are not comparable")
    if set(candidate.suites) != set(baseline.suites):
        only = sorted(set(candidate.suites) ^ set(baseline.suites))[0]
        where = "candidate" if only in candidate.suites else "baseline"
        raise DataError(f"suite {only!r} is in the {where} alone", hint="compare the same suites")
    for name in candidate.suites:
        ours, theirs = candidate.conditions.get(name, {}), baseline.conditions.get(name, {})
        for key in sorted(set(ours) | set(theirs)):
            if ours.get(key) != theirs.get(key):
                told = f"{key} is {ours.get(key)!r} in the candidate, {theirs.get(key)!r} in the baseline"
                raise DataError(f"suite {name!r}: {told}", hint="run both arms under the same conditions")


@dataclass(frozen=True)
class _Judged:
    """One suite on its way to a verdict."""

    name: str
    pairs: Pairs
    worst: Pairs
    best: Pairs
    margin: float
    truncated: dict[str, int]
    failed: dict[str, int]
    unscorable: dict[str, int]
    samples: dict[str, int]
    answers: dict[str, Any]

    @classmethod
    def of(cls, name: str, candidate: Sequence[Sample], baseline: Sequence[Sample], margin: float) -> "_Judged":
        arms = {"candidate": candidate, "baseline": baseline}
        ours, theirs = _by_item(candidate), _by_item(baseline)
        items = sorted(set(ours) | set(theirs))
        both = [item for item in items if _mean(ours.get(item)) is not None and _mean(theirs.get(item)) is not None]
        if not both:
            raise DataError(f"suite {name!r}: no item was scored in both arms")
        clusters = {item: _cluster(ours.get(item, []) + theirs.get(item, [])) for item in items}
        clustered = any(cluster is not None for cluster in clusters.values())
        binary = all(
            len(_scores(arm.get(item, []))) <= 1 and set(_scores(arm.get(item, []))) <= {0.0, 1.0}
            for arm in (ours, theirs)
            for item in items
        )

        def paired(chosen: Sequence[str], missing_ours: float, missing_theirs: float) -> Pairs:
            first = [_mean(ours.get(item), missing_ours) for item in chosen]
            second = [_mean(theirs.get(item), missing_theirs) for item in chosen]
            labels = [clusters[item] or f"\0{item}" for item in chosen] if clustered else None
            return Pairs(np.array(first, np.float64), np.array(second, np.float64), labels, binary)

        def counted(states: str) -> dict[str, int]:
            return {arm: sum(sample.state == states for sample in samples) for arm, samples in arms.items()}

        return cls(
            name=name,
            pairs=paired(both, 0, 0),
            worst=paired(items, 0, 1),
            best=paired(items, 1, 0),
            margin=margin / 100,
            truncated={arm: sum(sample.truncated for sample in samples) for arm, samples in arms.items()},
            failed=counted("failed"),
            unscorable=counted("unscorable"),
            samples={arm: len(samples) for arm, samples in arms.items()},
            answers=answer_rates(ours, theirs, clusters),
        )

    @property
    def p_pass(self) -> float:
        """Against a loss of the margin or more, missing scores taken for the worst."""
        return max(self.pairs.p_above(-self.margin), self.worst.p_above(-self.margin))

    @property
    def p_fail(self) -> float:
        """Against a loss of less than the margin, missing scores taken for the best."""
        return max(self.pairs.p_below(-self.margin), self.best.p_below(-self.margin))

    @property
    def is_truncated(self) -> bool:
        return any(count > MOST_TRUNCATED * self.samples[arm] for arm, count in self.truncated.items())

    def outcome(self, p_pass: float, p_fail: float) -> Outcome:
        if self.is_truncated:
            return "INCONCLUSIVE"
        return "PASS" if p_pass < ALPHA else "FAIL" if p_fail < ALPHA else "INCONCLUSIVE"

    def verdict(self, adjusted_pass: float, adjusted_fail: float) -> SuiteVerdict:
        pairs, (low, high) = self.pairs, self.pairs.interval()
        bca = bca_interval(pairs)
        return SuiteVerdict(
            name=self.name,
            verdict=self.outcome(adjusted_pass, adjusted_fail),
            unadjusted=self.outcome(self.p_pass, self.p_fail),
            n=pairs.n,
            candidate=100 * float(pairs.candidate.mean()),
            baseline=100 * float(pairs.baseline.mean()),
            difference=100 * pairs.mean,
            standard_error=100 * pairs.standard_error,
            interval=(100 * low, 100 * high),
            bca=None if bca is None else (100 * bca[0], 100 * bca[1]),
            margin=100 * self.margin,
            truncated=self.truncated,
            failed=self.failed,
            unscorable=self.unscorable,
            missing=self.worst.n - pairs.n,
            mcnemar_p=pairs.mcnemar_p() if pairs.is_scored else None,
            clusters=None if pairs.clusters is None else pairs.units,
            answers=self.answers,
            is_truncated=self.is_truncated,
        )


def _pooled(found: Sequence[_Judged], suites: Sequence[SuiteVerdict], margin: float) -> dict[str, Any]:
    """The mean over suites, each counting alike: SE = sqrt(sum SE^2) / J."""
    if len(suites) == 1:
        only = suites[0]
        return {"difference": only.difference, "interval": list(only.interval), "verdict": only.verdict}

    def end(kind: str) -> tuple[float, float]:
        """Mean and error, in points."""
        pairs: list[Pairs] = [getattr(one, kind) for one in found]
        mean = 100 * sum(one.mean for one in pairs) / len(pairs)
        return mean, 100 * math.sqrt(sum(_error(one) ** 2 for one in pairs)) / len(pairs)

    mean, error = end("pairs")
    low, high = mean - Z_ONE_SIDED * error, mean + Z_ONE_SIDED * error
    worst, worst_error = end("worst")
    best, best_error = end("best")
    verdict: Outcome = "INCONCLUSIVE"
    if not any(one.is_truncated for one in found):
        if min(low, worst - Z_ONE_SIDED * worst_error) > -margin:
            verdict = "PASS"
        elif max(high, best + Z_ONE_SIDED * best_error) < -margin:
            verdict = "FAIL"
    return {"difference": mean, "interval": [low, high], "verdict": verdict}


def _error(pairs: Pairs) -> float:
    """Never 0: where nothing varies, half of the interval in standard errors."""
    error = pairs.standard_error
    if math.isinf(error):
        return 1.0
    return error if error > 0 else (pairs.interval()[1] - pairs.mean) / Z_ONE_SIDED


def _by_item(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.key, []).append(sample)
    return found


def _scores(samples: Sequence[Sample]) -> list[float]:
    return [sample.score for sample in samples if sample.state == "scored" and sample.score is not None]


def _mean(samples: Sequence[Sample] | None, missing: float | None = None) -> float | None:
    """Mean over the scored repeats of one item; `missing` where there is none."""
    scores = _scores(samples or ())
    return sum(scores) / len(scores) if scores else missing


def _cluster(samples: Sequence[Sample]) -> str | None:
    return next((sample.cluster for sample in samples if sample.cluster is not None), None)
