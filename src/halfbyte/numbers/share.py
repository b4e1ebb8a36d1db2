"""The interval of a share of independent trials, honest at 0 and at 1."""

from math import sqrt
from statistics import NormalDist

from halfbyte.numbers.clustered import CONFIDENCE, Estimate


def share(successes: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """successes / trials with Wilson's score interval: eight of eight is not certainty. trials ≥ 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    mean = successes / trials
    centre = (mean + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(mean * (1 - mean) / trials + z * z / (4 * trials * trials))
    return Estimate(mean, 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)
