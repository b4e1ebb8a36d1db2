"""Figures that cannot be: out of range, not finite, or at odds with each other. Who finds one trusts none of them."""

import math
from collections.abc import Iterator

from halfbyte.evidence.comparison import Compared, ComparisonResult, Estimate, Evaluated, Figures, Measured

SLACK = 1e-6
"""What rounding may do to a sum that should be 0 or 1."""


def impossible(row: Compared | Evaluated) -> Iterator[str]:
    """What is wrong with the figures of one recorded result, empty if nothing is."""
    if isinstance(row, Evaluated):
        if row.max_context < 0:
            yield f"max_context is {row.max_context}"
        yield from _evaluated(row)
        return
    yield from _result(row, "")
    if row.result is not None:
        yield from _result(row.result, "result: ")
        yield from _at_odds(row, row.result)


def _evaluated(row: Evaluated) -> Iterator[str]:
    if row.n is not None and row.n < 0:
        yield f"n is {row.n}"
    if row.margin is not None and not 0 < row.margin <= 100:
        yield f"margin is {row.margin}"
    if row.difference is not None and not -100 <= row.difference <= 100:
        yield f"difference is {row.difference}"
    if row.interval is None:
        return
    if len(row.interval) != 2 or not -100 <= row.interval[0] <= row.interval[1] <= 100:
        yield f"interval is {row.interval}"
    elif row.margin is not None and row.verdict == "PASS" and row.interval[0] < -row.margin - SLACK:
        yield f"verdict is PASS, and the interval reaches {row.interval[0]} below a margin of {row.margin}"
    elif row.margin is not None and row.verdict == "FAIL" and row.interval[1] > -row.margin + SLACK:
        yield f"verdict is FAIL, and the interval reaches {row.interval[1]} with a margin of {row.margin}"


def _at_odds(beside: Figures, result: Figures) -> Iterator[str]:
    """The same figure said twice, differently."""
    for name in ("kl", "top1_agreement", "tokens"):
        ours, theirs = getattr(beside, name), getattr(result, name)
        if ours is not None and theirs is not None and ours != theirs:
            yield f"{name} is said twice, and differs"


def _result(result: ComparisonResult, where: str) -> Iterator[str]:
    yield from _measured(result, where)
    if result.a4_sim is not None:
        yield from _measured(result.a4_sim, f"{where}a4_sim: ")


def _measured(measured: Measured, where: str) -> Iterator[str]:
    yield from _figures(measured, where)
    for field, values in measured.slices.items():
        for value, figures in values.items():
            yield from _figures(figures, f"{where}slice {field}={value}: ")
        parts = [figures.tokens for figures in values.values() if figures.tokens is not None]
        if measured.tokens is not None and sum(parts) > measured.tokens:
            yield f"{where}slices by {field} have {sum(parts)} tokens, the whole has {measured.tokens}"
    for span in measured.positions:
        if not 0 <= span.start < span.stop:
            yield f"{where}positions {span.start} to {span.stop}"
        yield from _figures(span, f"{where}positions {span.start} to {span.stop}: ")
    for layer in measured.layers:
        for name in ("router_agreement", "indexer_overlap"):
            yield from _share(getattr(layer, name), f"{where}layer {layer.layer}: {name}")
        yield from _least(layer.hidden_error, f"{where}layer {layer.layer}: hidden_error")
    for probe in measured.recall:
        for model, estimate in probe.recalled.items():
            yield from _estimate(estimate, f"{where}recall of {model}", 0, 1)


def _figures(figures: Figures, where: str) -> Iterator[str]:
    for name in ("tokens", "documents"):
        yield from _least(getattr(figures, name), f"{where}{name}")
    if figures.tokens is not None and figures.documents is not None and figures.documents > figures.tokens:
        yield f"{where}{figures.documents} documents of {figures.tokens} tokens"
    if figures.kl is not None:
        yield from _estimate(figures.kl, f"{where}kl", 0, math.inf)
    for name in ("top1_agreement", "topk_overlap"):
        estimate = getattr(figures, name)
        if estimate is not None:
            yield from _estimate(estimate, f"{where}{name}", 0, 1)
    found = figures.perplexity
    if found is None:
        return
    for name in ("base", "candidate", "ratio", "low", "high"):
        value = getattr(found, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            yield f"{where}perplexity {name} is {value}"
            return
    if found.base and found.candidate and found.ratio:
        expected = found.candidate / found.base
        if abs(found.ratio - expected) > 1e-3 * expected:
            yield f"{where}perplexity ratio is {found.ratio}, {found.candidate} over {found.base} is {expected:g}"
    yield from _estimate(
        Estimate(mean=found.ratio, low=found.low, high=found.high), f"{where}perplexity ratio", 0, 1e308
    )


def _estimate(estimate: Estimate, name: str, lowest: float, highest: float) -> Iterator[str]:
    """A mean within its interval and its range. The interval itself may pass the range by its method."""
    mean, low, high = estimate.mean, estimate.low, estimate.high
    for end, value in (("mean", mean), ("low", low), ("high", high)):
        if value is not None and not math.isfinite(value):
            yield f"{name}: {end} is {value}"
            return
    if mean is not None and not lowest - SLACK <= mean <= highest + SLACK:
        yield f"{name} is {mean}, which it cannot be"
    if mean is None and (low is not None or high is not None):
        yield f"{name} has an interval and no mean"
        return
    if mean is None:
        return
    slack = SLACK * max(1.0, abs(mean))
    if (low is not None and low > mean + slack) or (high is not None and high < mean - slack):
        yield f"{name}: the mean {mean} lies outside its interval {low} to {high}"


def _share(value: float | None, name: str) -> Iterator[str]:
    if value is not None and not (math.isfinite(value) and -SLACK <= value <= 1 + SLACK):
        yield f"{name} is {value}, which it cannot be"


def _least(value: float | None, name: str) -> Iterator[str]:
    if value is not None and not (math.isfinite(value) and value >= 0):
        yield f"{name} is {value}, which it cannot be"
