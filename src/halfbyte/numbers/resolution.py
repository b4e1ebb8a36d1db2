"""What a number of items can tell, before any is asked: the normal approximation and its constants.

Sources: the usual sample-size formulas; z for 5 % two-sided, 5 % one-sided, and 80 % power.
"""

import math

Z_TWO_SIDED = 1.959963984540054
"""P(|Z| > z) = 5 %."""
Z_ONE_SIDED = 1.6448536269514722
"""P(Z > z) = 5 %: non-inferiority, and the ends of a 90 % interval."""
Z_POWER = 0.8416212335729143
"""P(Z > -z) = 80 %."""

DETECT, NOT_EXCLUDED = 2.802, 1.645
"""Standard errors of a difference that a two-sided test at 5 % sees with 80 % power; that a drop is excluded by at 5 %.
As they are usually written: a figure can be checked by hand."""

SMALLEST_DROP, SMALLEST_MARGIN = 2.8016, 2.4865
"""The sums of these, to four decimals, so that a figure can be checked by hand to the last item."""


def binomial_variance(share: float, n: int) -> float:
    """Variance of a share of `n` independent trials; at 0 and 1, where p (1 - p) says certainty, that of Agresti and
    Coull's share (x + 2) / (n + 4)."""
    if share <= 0 or share >= 1:
        share = (share * n + 2) / (n + 4)
    return share * (1 - share) / n


def unpaired_error(first: float, second: float, n: int, correlation: float = 0.0) -> float:
    """Standard error of a difference of two shares of `n` items each, whose items are correlated by `correlation`.

    With equal variances, pairing multiplies the unpaired error by sqrt(1 - r).
    """
    return math.sqrt((binomial_variance(first, n) + binomial_variance(second, n)) * (1 - correlation))


def smallest_drop(variance: float, n: int) -> float:
    """The difference that a two-sided test at 5 % sees with 80 % power. variance: of one item's difference."""
    return SMALLEST_DROP * math.sqrt(variance / n)


def smallest_margin(variance: float, n: int) -> float:
    """The margin that a non-inferiority test at 5 % passes with 80 % power where there is no difference."""
    return SMALLEST_MARGIN * math.sqrt(variance / n)


def items_needed(variance: float, margin: float) -> int:
    """Items with which that margin can be passed."""
    return math.ceil(SMALLEST_MARGIN**2 * variance / margin**2)
