"""What moves before accuracy does: output length, answers cut short, refusals, answers that cannot be read."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from halfbyte.evaluate.samples import Sample
from halfbyte.numbers.paired import Pairs
from halfbyte.numbers.share import share

CONFIDENCE = 0.95
MEASURES: dict[str, Callable[[Sample], "float | None"]] = {
    "output_tokens": lambda sample: sample.output_tokens,
    "truncated": lambda sample: sample.truncated,
    "refused": lambda sample: sample.refused,
    "unparsed": lambda sample: sample.unparsed,
}

ByItem = dict[str, list[Sample]]


def answer_rates(candidate: ByItem, baseline: ByItem, clusters: dict[str, str | None]) -> dict[str, Any]:
    """By measure: mean and 95 % interval of each arm and of the difference over items of both; None if not recorded."""
    return {name: _measured(measure, candidate, baseline, clusters) for name, measure in MEASURES.items()}


def _measured(
    measure: Callable[[Sample], "float | None"], candidate: ByItem, baseline: ByItem, clusters: dict[str, str | None]
) -> dict[str, Any] | None:
    ours, theirs = _means(measure, candidate), _means(measure, baseline)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    scale = max(1.0, *ours.values(), *theirs.values())
    arms = {"candidate": (ours, candidate), "baseline": (theirs, baseline)}
    found: dict[str, Any] = {}
    for arm, (means, samples) in arms.items():
        items = sorted(means)
        found[arm] = _of_one_arm([means[item] for item in items], items, samples, clusters, scale)
    found["difference"] = _interval(
        Pairs(_array(ours, both, scale), _array(theirs, both, scale), _labels(both, clusters), binary=False), scale
    )
    return found


def _means(measure: Callable[[Sample], "float | None"], samples: ByItem) -> dict[str, float]:
    found = {}
    for item, runs in samples.items():
        values = [value for sample in runs if sample.state != "failed" and (value := measure(sample)) is not None]
        if values:
            found[item] = float(np.mean(values))
    return found


def _of_one_arm(
    means: Sequence[float], items: Sequence[str], samples: ByItem, clusters: dict[str, str | None], scale: float
) -> dict[str, float | None]:
    labels = _labels(items, clusters)
    if labels is None and scale == 1 and all(len(samples[item]) == 1 for item in items):
        return share(round(sum(means)), len(means), CONFIDENCE).as_json()
    values = np.array(means) / scale
    return _interval(Pairs(values, np.zeros(len(values)), labels, binary=False), scale, least=0)


def _interval(pairs: Pairs, scale: float, least: float | None = None) -> dict[str, float | None]:
    if pairs.units < 2:
        return {"mean": scale * pairs.mean, "low": None, "high": None}
    low, high = pairs.interval(CONFIDENCE)
    return {
        "mean": scale * pairs.mean,
        "low": scale * (low if least is None else max(low, least)),
        "high": scale * high,
    }


def _array(means: dict[str, float], items: Sequence[str], scale: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([means[item] / scale for item in items])


def _labels(items: Sequence[str], clusters: dict[str, str | None]) -> list[str] | None:
    if all(clusters.get(item) is None for item in items):
        return None
    return [clusters.get(item) or f"\0{item}" for item in items]
