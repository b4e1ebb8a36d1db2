"""Quantiles against printed tables, intervals by simulation: they cover the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.numbers.clustered import Estimate, clustered_mean
from halfbyte.numbers.student import t_quantile, two_sided_p

TABLE = {1: 12.7062047, 2: 4.30265273, 3: 3.18244631, 5: 2.57058184, 10: 2.22813885, 30: 2.04227246, 1000: 1.96233908}


@pytest.mark.parametrize("df", TABLE)
def test_quantiles_as_in_tables(df: int) -> None:
    assert t_quantile(0.95, df) == pytest.approx(TABLE[df], rel=1e-8)


def test_cauchy_and_normal_limits() -> None:
    assert two_sided_p(1.0, 1) == pytest.approx(0.5, abs=1e-14)
    assert t_quantile(0.99, 1) == pytest.approx(63.6567411629, rel=1e-10)
    assert t_quantile(0.95, 1e7) == pytest.approx(1.95996398, rel=1e-6)


@given(st.floats(1, 500), st.floats(0.05, 0.999))
def test_quantile_inverts_probability(df: float, confidence: float) -> None:
    assert two_sided_p(t_quantile(confidence, df), df) == pytest.approx(1 - confidence, rel=1e-7)


def coverage(documents: int, unequal: bool, heavy: bool, trials: int = 1500, seed: int = 0) -> float:
    """Share of intervals that hold the true mean, of documents with own means and noisy tokens (correlation 0.5)."""
    random, held = np.random.default_rng(seed), 0
    truth = float(np.exp(0.125)) if heavy else 0.0
    for _ in range(trials):
        lengths = np.ceil(np.exp(random.normal(3, 1, documents))) if unequal else np.full(documents, 20)
        means = np.exp(random.normal(0, 0.5, documents)) if heavy else random.normal(0, 1, documents)
        data = [mean + random.normal(0, 1, int(length)) for mean, length in zip(means, lengths, strict=True)]
        found = clustered_mean(data)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    return held / trials


@pytest.mark.parametrize("documents", [2, 4, 16])
@pytest.mark.parametrize("unequal", [False, True])
def test_interval_covers_the_truth(documents: int, unequal: bool) -> None:
    """1,500 trials: the standard error of a coverage of 95 % is 0.6 points."""
    assert 0.93 <= coverage(documents, unequal, heavy=False) <= (0.99 if unequal else 0.97)


@pytest.mark.parametrize("documents", [4, 16])
def test_interval_with_skewed_documents(documents: int) -> None:
    assert coverage(documents, unequal=True, heavy=True) >= 0.90


def test_tokens_are_not_the_sample() -> None:
    """A thousand equal tokens in each of three documents say no more than three numbers."""
    found = clustered_mean([np.full(1000, value) for value in (1.0, 2.0, 3.0)])
    assert found is not None
    assert found.mean == 2.0
    assert found.high == pytest.approx(2.0 + TABLE[2] * 1 / np.sqrt(3), rel=1e-9)


def test_mean_is_over_tokens() -> None:
    found = clustered_mean([np.array([0.0]), np.array([1.0, 1.0, 1.0]), np.array([])])
    assert found is not None
    assert found.mean == 0.75


def test_too_little_for_an_interval() -> None:
    assert clustered_mean([]) is None
    assert clustered_mean([np.array([])]) is None
    assert clustered_mean([np.array([1.0, 2.0])]) == Estimate(1.5, None, None)
    assert clustered_mean([np.array([1.0]), np.array([np.inf])]) == Estimate(np.inf, None, None)


def test_no_difference_has_no_width() -> None:
    assert clustered_mean([np.zeros(5), np.zeros(3)]) == Estimate(0.0, 0.0, 0.0)


def test_clipped_and_exponential() -> None:
    assert Estimate(0.9, 0.7, 1.2).clipped(0, 1) == Estimate(0.9, 0.7, 1.0)
    assert Estimate(0.0, 0.0, 0.0).exponential() == Estimate(1.0, 1.0, 1.0)
    assert Estimate(0.0, None, None).exponential().clipped(0, 1) == Estimate(1.0, None, None)
