"""How far repeated runs of the same items agree: the noise of a suite without any difference to see."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def flip_rate(scores: Floats) -> float:
    """Chance that two runs of one item differ, mean over items. scores: float64 [items, runs], runs ≥ 2.

    Of scores between 0 and 1, the mean absolute difference.
    """
    runs = scores.shape[1]
    pairs = [np.abs(scores[:, i] - scores[:, j]) for i in range(runs) for j in range(i)]
    return float(np.mean(pairs))


def within_variance(scores: Floats) -> float:
    """Variance of one run inside an item, mean over items."""
    return float(scores.var(axis=1, ddof=1).mean())


def intraclass_correlation(scores: Floats) -> float | None:
    """ICC(1): the share of a single run's variance that is the items' own. None where nothing varies.

    Source: Shrout and Fleiss 1979, one-way random effects.
    """
    items, runs = scores.shape
    if items < 2:
        return None
    between = runs * float(scores.mean(axis=1).var(ddof=1))
    within = within_variance(scores)
    total = between + (runs - 1) * within
    return (between - within) / total if total > 0 else None
