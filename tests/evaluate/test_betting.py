"""A confidence sequence by betting: false at no look more often than it says, and not idle."""

import numpy as np
import pytest

from halfbyte.numbers.betting import Floats, lower_bound, upper_bound


def differences(draw: np.random.Generator, n: int, discordance: float, mean: float) -> Floats:
    shares = [(discordance - mean) / 2, 1 - discordance, (discordance + mean) / 2]
    return draw.choice([-1.0, 0.0, 1.0], n, p=shares)


@pytest.mark.parametrize(("discordance", "n"), [(0.1, 400), (0.4, 200)])
def test_false_at_any_of_many_looks_in_no_more_than_one_of_twenty(discordance: float, n: int) -> None:
    draw, margin, runs = np.random.default_rng(3), 0.05, 200
    false = 0
    for _ in range(runs):
        values = differences(draw, n, discordance, -margin)
        false += any(lower_bound(values[:t], 0.05, n) > -margin for t in range(10, n + 1, 10))
    assert false / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_it_narrows_and_decides() -> None:
    draw = np.random.default_rng(4)
    values = differences(draw, 2000, 0.1, 0.02)
    bounds = [lower_bound(values[:t], 0.05, 2000) for t in (50, 500, 2000)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > -0.02
    assert lower_bound(values, 0.05, 2000) < values.mean() < upper_bound(values, 0.05, 2000)
    assert lower_bound(values[:0], 0.05, 10) == -1


def test_sides_mirror_and_bounds_scale() -> None:
    values = differences(np.random.default_rng(5), 300, 0.3, 0.0)
    assert upper_bound(values, 0.05, 300) == -lower_bound(-values, 0.05, 300)
    assert lower_bound(3 * values, 0.05, 300, bound=3) == pytest.approx(3 * lower_bound(values, 0.05, 300))
