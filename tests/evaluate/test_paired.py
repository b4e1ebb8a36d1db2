"""Differences on the same items: against statsmodels, by other ways, and by simulation on known truth."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from halfbyte.numbers.paired import Pairs, bca_interval, holm, tango_interval, tango_statistic

Z = 1.6448536269514722


def pairs(won: int, lost: int, both: int, none: int) -> Pairs:
    candidate = np.array([1.0] * won + [0.0] * lost + [1.0] * both + [0.0] * none)
    baseline = np.array([0.0] * won + [1.0] * lost + [1.0] * both + [0.0] * none)
    return Pairs(candidate, baseline)


def restricted_share(won: int, lost: int, n: int, difference: float) -> float:
    """The likeliest share of lost pairs if the true difference is `difference`, by search instead of by formula."""
    equal = n - won - lost

    def cost(share: float) -> float:
        chances = (share + difference, share, 1 - 2 * share - difference)
        if min(chances) <= 0:
            return 1e9
        return -sum(k * math.log(p) for k, p in zip((won, lost, equal), chances, strict=True) if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    return float(optimize.minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)


@pytest.mark.parametrize("difference", [-0.2, -0.05, 0.03, 0.1, 0.4])
@pytest.mark.parametrize(("won", "lost", "n"), [(9, 4, 54), (1, 7, 40), (20, 20, 100), (3, 1, 12)])
def test_tango_by_another_way(won: int, lost: int, n: int, difference: float) -> None:
    share = restricted_share(won, lost, n, difference)
    variance = n * (2 * share + difference * (1 - difference))
    wanted = (won - lost - n * difference) / math.sqrt(variance)
    assert tango_statistic(won, lost, n, difference) == pytest.approx(wanted, abs=1e-5)


@given(n=st.integers(1, 5000))
def test_when_no_pair_differs(n: int) -> None:
    low, high = pairs(0, 0, n, 0).interval()
    half = Z * Z / (n + Z * Z)
    assert (low, high) == (pytest.approx(-half, abs=1e-9), pytest.approx(half, abs=1e-9))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200), st.integers(0, 50), st.floats(-0.3, 0.3))
@settings(max_examples=200, deadline=None)
def test_p_and_interval_say_the_same(won: int, lost: int, both: int, none: int, at: float) -> None:
    if won + lost + both + none == 0:
        return
    found = pairs(won, lost, both, none)
    low, high = found.interval()
    assert low <= found.mean + 1e-9
    assert high >= found.mean - 1e-9
    if abs(at - low) > 1e-6:
        assert (found.p_above(at) < 0.05) == (low > at)
    mirrored = pairs(lost, won, both, none)
    assert mirrored.interval() == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))


def test_mcnemar_is_exact() -> None:
    for won, lost in ((0, 0), (3, 9), (12, 12), (1, 30)):
        table = [[5, lost], [won, 5]]
        assert pairs(won, lost, 5, 5).mcnemar_p() == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_clustered_error_equals_statsmodels() -> None:
    draw = np.random.default_rng(3)
    candidate, baseline = draw.random(200), draw.random(200)
    clusters = [f"c{i}" for i in draw.integers(0, 30, 200)]
    found = Pairs(candidate, baseline, clusters, binary=False)
    labels = np.unique(clusters, return_inverse=True)[1]
    fit = OLS(candidate - baseline, np.ones(200)).fit(
        cov_type="cluster", cov_kwds={"groups": labels, "df_correction": True}
    )
    # statsmodels corrects by C / (C - 1) * (n - 1) / (n - k), k = 1: the second factor is one
    assert found.standard_error == pytest.approx(fit.bse[0], rel=1e-9)
    plain = Pairs(candidate, baseline, binary=False)
    test = stats.ttest_rel(candidate, baseline)
    ends = test.confidence_interval(0.90)
    assert plain.interval() == (pytest.approx(ends.low, rel=1e-9), pytest.approx(ends.high, rel=1e-9))
    one_sided = stats.ttest_1samp(candidate - baseline, -0.02, alternative="greater").pvalue
    assert plain.p_above(-0.02) == pytest.approx(one_sided, rel=1e-7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)


def test_bca_is_near_the_t_interval_and_seeded() -> None:
    draw = np.random.default_rng(5)
    found = Pairs(draw.random(300), draw.random(300), binary=False)
    low, high = found.interval()
    first = bca_interval(found)
    assert first is not None
    assert first == bca_interval(found)
    assert first == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert bca_interval(pairs(0, 0, 50, 0)) is None
    clustered = Pairs(draw.random(300), draw.random(300), [str(i // 10) for i in range(300)], binary=False)
    assert bca_interval(clustered) == (
        pytest.approx(clustered.interval()[0], abs=0.02),
        pytest.approx(clustered.interval()[1], abs=0.02),
    )


def test_few_units_tell_nothing() -> None:
    one = Pairs(np.array([1.0]), np.array([0.5]), binary=False)
    assert one.interval() == (-1.0, 1.0)
    assert math.isinf(one.standard_error)
    same = Pairs(np.array([0.5, 0.5, 1.0]), np.array([0.5, 0.5, 1.0]), ["a", "a", "a"], binary=False)
    assert same.interval() == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("n", "accuracy", "flips"), [(50, 0.9, 0.1), (200, 0.7, 0.2), (1000, 0.95, 0.05), (100, 0.99, 0.02)]
)
def test_false_passes_stay_at_five_percent(n: int, accuracy: float, flips: float) -> None:
    """A candidate that is worse by exactly the margin passes in no more than one of twenty."""
    draw, margin, runs = np.random.default_rng(11), min(0.05, flips / 2), 2000
    lose, win = (flips + margin) / 2, (flips - margin) / 2
    passed = 0
    for _ in range(runs):
        lost, won, _ = draw.multinomial(n, [lose, win, 1 - lose - win])
        passed += tango_interval(int(won), int(lost), n, Z)[0] > -margin
    assert passed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("n", "accuracy", "clustered"), [(100, 0.8, False), (500, 0.5, False), (500, 0.8, True), (1000, 0.95, False)]
)
def test_intervals_cover_what_they_say(n: int, accuracy: float, clustered: bool) -> None:
    """A fast version of benchmarks/evaluate/evaluate_calibration.py: 95 % intervals of a known difference."""
    draw, runs, loss, covered = np.random.default_rng(17), 1500, 0.04, 0
    labels = [str(i // 10) for i in range(n)] if clustered else None
    for _ in range(runs):
        level = np.full(n, accuracy)
        if clustered:
            level += np.repeat(draw.uniform(-0.15, 0.15, n // 10), 10)
        theirs = draw.random(n)
        ours = np.where(draw.random(n) < 0.7, theirs, draw.random(n))
        pairs = Pairs((ours < level - loss).astype(float), (theirs < level).astype(float), labels)
        low, high = pairs.interval(0.95)
        covered += low <= -loss <= high
    assert 0.94 - 0.012 <= covered / runs <= 0.96 + 0.012  # 94 to 96 %, two errors of the simulation
