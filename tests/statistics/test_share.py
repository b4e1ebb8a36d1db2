"""Wilson's interval against printed values, and at the ends."""

import pytest

from halfbyte.numbers.share import share


def test_against_printed_values() -> None:
    """Newcombe 1998, table I: 81 of 263 and 15 of 148, Wilson without continuity correction."""
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = share(successes, trials)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_all_and_none_are_not_certain() -> None:
    every, none = share(8, 8), share(0, 8)
    assert (every.mean, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(0.6756, abs=5e-5)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.6756, abs=5e-5))
