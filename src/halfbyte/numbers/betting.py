"""The mean of bounded quantities, bounded from below or above at every look: a confidence sequence by betting.

A gambler bets that the mean is above m; if it is not, his capital has expectation at most 1 at every time, so that it
ever reaches 1/α in no more than a share α of all histories (Ville). The lower bound is the largest m that the bets
against it have refuted. No schedule of looks, no correction for how often one looks.

Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", the predictable
plug-in bets of a fixed horizon, one side at a time.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST_BET = 0.75
"""Share of the capital that one unit can lose at most."""
_STEPS = 50


def lower_bound(values: Floats, alpha: float, horizon: int, bound: float = 1.0) -> float:
    """With probability 1 - alpha never above the mean, at whatever look. values: float64 [t], each in ±bound, in the
    order in which they came. horizon: how many there will be at most; bets are sized for it, validity does not need it.
    """
    if len(values) == 0:
        return -bound
    scaled = (values / bound + 1) / 2
    bets = _bets(scaled, alpha, horizon)
    wanted = math.log(1 / alpha)

    def refuted(mean: float) -> bool:
        sized = np.minimum(bets, MOST_BET / mean) if mean > 0 else bets
        return float(np.log1p(sized * (scaled - mean)).sum()) >= wanted

    low, high = 0.0, 1.0
    if not refuted(low):
        return -bound
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return (2 * low - 1) * bound


def upper_bound(values: Floats, alpha: float, horizon: int, bound: float = 1.0) -> float:
    """With probability 1 - alpha never below the mean, at whatever look."""
    return -lower_bound(-values, alpha, horizon, bound)


def _bets(scaled: Floats, alpha: float, horizon: int) -> Floats:
    """For each value, from those before it alone: sqrt(2 log(1/α) / (variance so far × horizon))."""
    seen = np.arange(1, len(scaled) + 1)
    means = (0.5 + np.cumsum(scaled)) / (seen + 1)
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (seen + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets: Floats = np.sqrt(2 * math.log(1 / alpha) / (before * max(horizon, len(scaled))))
    return bets
