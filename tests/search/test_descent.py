"""The walk to the choice of least damage: by what was measured, never twice, and no further than it leads."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.search.descent import ROUNDS, Neighbours, descend
from halfbyte.search.knapsack import Choice, Item, choice_of, front, near

DAMAGES = st.lists(st.floats(0.01, 1), min_size=2, max_size=7)


@given(DAMAGES, st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 6)), st.floats(-0.9, 0.9), max_size=8))
def test_no_neighbour_is_better_than_the_end_of_a_walk(
    alone: list[float], together: dict[tuple[int, int], float]
) -> None:
    """Damages that pairs hide or add, as real ones do."""
    items = [Item(1, damage) for damage in alone]
    passes: list[list[int]] = []

    def damage(choice: Choice) -> float:
        own = set(choice.items())
        return sum(alone[i] for i in own) + sum(more for (i, j), more in together.items() if {i, j} <= own)

    def measure(some: Sequence[Choice]) -> list[float]:
        passes.append([choice.taken for choice in some])
        return [damage(choice) for choice in some]

    def beside(start: Choice) -> Neighbours:
        return lambda now: near(items, now, start.saved, 5)

    starts = [choice for choice in front(items) if choice.saved]
    ends, known = descend([(start, beside(start)) for start in starts], measure)
    asked = [taken for some in passes for taken in some]
    assert len(passes) <= ROUNDS
    assert len(asked) == len(set(asked)) == len(known)
    for start, end in zip(starts, ends, strict=True):
        assert end.saved >= start.saved
        assert damage(end) <= damage(start)
        if len(passes) < ROUNDS:
            assert all(damage(end) <= damage(other) for other in near(items, end, start.saved, 5))


def test_what_is_wanted_beside_it_is_in_the_first_pass() -> None:
    items = [Item(2, 0.1), Item(1, 0.2)]
    both, first = choice_of(items, [True, True]), choice_of(items, [True, False])
    assert (both.saved, both.items()) == (3, [0, 1])
    assert both.damage == pytest.approx(0.3)
    passes: list[list[Choice]] = []

    def measure(some: Sequence[Choice]) -> list[float]:
        passes.append(list(some))
        return [choice.damage for choice in some]

    (end,), known = descend([(first, lambda now: [])], measure, also=[both])
    assert end == first
    assert passes == [[both, first]]
    assert known == {both.taken: both.damage, first.taken: first.damage}
