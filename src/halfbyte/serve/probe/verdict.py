"""The verdict on an engine. Thresholds from what BF16 kernels differ by among themselves (docs/engines.md 12).

There, mean differences of log-probabilities were 0.018 to 0.054 and the likeliest token the same at 95 to 99 % of
positions; a factor applied twice gave 19 %.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from halfbyte.engines.scoring import Scored
from halfbyte.errors import UsageError, said
from halfbyte.evidence.reference import ReferenceDocument

Verdict = Literal["agrees", "differs", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"agrees": 0, "differs": 1, "undecided": 3}
FEWEST = 50
"""Positions below which nothing is decided."""


@dataclass(frozen=True)
class Thresholds:
    """An engine agrees with at least `agree_top1` of the likeliest tokens the same and log-probabilities that differ by
    no more than `agree_difference` nats in the mean; it differs below `differ_top1`, or above `differ_difference`."""

    agree_top1: float = 0.93
    agree_difference: float = 0.10
    differ_top1: float = 0.80
    differ_difference: float = 0.35

    def __post_init__(self) -> None:
        if not 0 <= self.differ_top1 <= self.agree_top1 <= 1:
            raise UsageError(said("{differ_top1} and {agree_top1}: wanted 0 to 1, the first no larger"))
        if not 0 <= self.agree_difference <= self.differ_difference:
            raise UsageError(said("{agree_difference} and {differ_difference}: wanted 0 or more, the first no larger"))


@dataclass(frozen=True)
class Probed:
    """nll: mean negative log-likelihoods in nats. thresholds: that the verdict was made by."""

    verdict: Verdict
    positions: int
    top1_agreement: float
    mean_abs_logprob_difference: float
    nll_engine: float
    nll_reference: float
    thresholds: Thresholds

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "thresholds"} | {
            "thresholds": vars(self.thresholds)
        }


def judge(reference: ReferenceDocument, scores: Sequence[Sequence[Scored]], thresholds: Thresholds) -> Probed:
    """scores: of each sequence, position by position."""
    same: list[bool] = []
    pairs: list[tuple[float, float]] = []
    for sequence, row in zip(reference.sequences, scores, strict=True):
        for wanted, top, scored in zip(sequence.logprobs, sequence.top_ids, row, strict=True):
            same.append(scored.top == top[0])
            # where the engine tells the likeliest only, the token is no likelier than the last of them
            own = min(scored.at_most, float(wanted)) if scored.logprob is None else scored.logprob
            pairs.append((own, float(wanted)))
    top1 = sum(same) / len(same)
    difference = statistics.fmean(abs(own - wanted) for own, wanted in pairs)
    return Probed(
        _verdict(len(same), top1, difference, thresholds),
        len(same),
        top1,
        difference,
        -statistics.fmean(own for own, _ in pairs),
        -statistics.fmean(wanted for _, wanted in pairs),
        thresholds,
    )


def _verdict(positions: int, top1: float, difference: float, t: Thresholds) -> Verdict:
    if positions < FEWEST:
        return "undecided"
    if top1 < t.differ_top1 or not difference <= t.differ_difference:
        return "differs"
    return "agrees" if top1 >= t.agree_top1 and difference <= t.agree_difference else "undecided"
