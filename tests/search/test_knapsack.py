"""The front against every subset."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.search.knapsack import LARGE, Item, cheapest, front, near

ITEMS = st.lists(st.builds(Item, st.integers(1, 12), st.integers(0, 20).map(float)), max_size=9)


def every_subset(items: list[Item]) -> list[tuple[int, float]]:
    return [
        (
            sum(i.saved for i, t in zip(items, taken, strict=True) if t),
            sum(i.damage for i, t in zip(items, taken, strict=True) if t),
        )
        for taken in product((False, True), repeat=len(items))
    ]


@given(ITEMS, st.integers(0, 120))
def test_least_damage_of_all_subsets(items: list[Item], saved: int) -> None:
    possible = [damage for size, damage in every_subset(items) if size >= saved]
    best = cheapest(front(items), saved)
    assert (best is None) == (not possible)
    if best is not None:
        assert best.damage == min(possible)
        assert best.damage == sum(items[i].damage for i in best.items())
        assert best.saved == sum(items[i].saved for i in best.items()) >= saved


@given(ITEMS)
def test_front_is_strictly_a_trade(items: list[Item]) -> None:
    choices = front(items)
    assert [c.saved for c in choices] == sorted({c.saved for c in choices})
    assert [c.damage for c in choices] == sorted({c.damage for c in choices})
    assert choices[-1].saved == sum(item.saved for item in items)


@pytest.mark.timeout(30)
def test_as_many_groups_as_the_largest_models_have() -> None:
    """75 layers of routed and of shared experts and three dense ones: sizes repeat, damages do not."""
    items = [Item(3_000_000_000, 1 + (i * 37 % 75) / 75) for i in range(75)]
    items += [Item(25_000_000, 0.1 + (i * 53 % 75) / 750) for i in range(75)]
    items += [Item(300_000_000, 0.3 + i / 10) for i in range(3)]
    assert len(front(items)) < 76 * 76 * 4 + 1


@given(ITEMS, st.integers(0, 60))
def test_neighbours_are_other_choices_that_save_as_much(items: list[Item], saved: int) -> None:
    best = cheapest(front(items), saved)
    if best is None:
        return
    found = near(items, best, saved, 5)
    assert len({choice.taken for choice in found} | {best.taken}) == len(found) + 1
    for choice in found:
        assert choice.saved == sum(items[i].saved for i in choice.items()) >= saved
        assert choice.damage == pytest.approx(sum(items[i].damage for i in choice.items()))
        assert choice.damage >= best.damage - 1e-9
        most = max(item.saved for item in items)
        large = sum(1 << i for i, item in enumerate(items) if item.saved * LARGE >= most)
        assert (choice.taken & ~best.taken & large).bit_count() <= 2
        assert (best.taken & ~choice.taken & large).bit_count() <= 2
    assert found == sorted(found, key=lambda choice: (choice.damage, choice.taken))


def test_many_small_ones_may_make_up_for_a_large_one() -> None:
    """Three large items damage least by the sum; two and four small ones are next to them."""
    items = [Item(8, 0.1), Item(8, 0.1), Item(8, 0.1), *(Item(1, 0.05) for _ in range(4))]
    best = cheapest(front(items), 20)
    assert best is not None
    assert best.items() == [0, 1, 2]
    found = near(items, best, 20, 6)
    assert any(choice.taken >> 3 == 0b1111 and choice.saved == 20 for choice in found)
