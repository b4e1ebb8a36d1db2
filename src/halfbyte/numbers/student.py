"""Quantiles of Student's t, for any positive number of degrees of freedom.

P(|T| > t) = I_x(df/2, 1/2) with x = df / (df + t²), I the regularized incomplete beta function, here by its continued
fraction (modified Lentz). Sources: Abramowitz & Stegun 26.7.1, 26.5.8.
"""

from functools import cache
from math import exp, lgamma, log

_STEPS = 300
_TINY = 1e-300


def two_sided_p(t: float, df: float) -> float:
    """P(|T| > t) for t ≥ 0, df > 0."""
    return _incomplete_beta(df / (df + t * t), df / 2, 0.5)


@cache
def t_quantile(confidence: float, df: float) -> float:
    """The t with P(|T| ≤ t) = confidence, to 10 digits. confidence in (0, 1), df > 0."""
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, df) > 1 - confidence else (low, middle)
        if high - low <= 1e-11 * high:
            break
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularized I_x(a, b), 0 ≤ x ≤ 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the complement converges faster
        return 1 - _incomplete_beta(1 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x)) / a
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
