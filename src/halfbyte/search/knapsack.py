"""The exact choice: every trade of size against damage that no other choice beats, by dynamic programming.

States are (bytes saved, damage); a state that another one matches in both is dropped. Groups of one role have one
size, so the number of states stays near the product of the roles' layer counts, far from 2^groups.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be taken: what it saves (bytes, an integer) and what it costs (damage ≥ 0)."""

    saved: int
    damage: float


@dataclass(frozen=True, slots=True)
class Choice:
    """taken: a bit for each item, the first item lowest."""

    saved: int
    damage: float
    taken: int

    def items(self) -> list[int]:
        return [i for i in range(self.taken.bit_length()) if self.taken >> i & 1]


def choice_of(items: Sequence[Item], taken: Sequence[bool]) -> Choice:
    """The choice of some items; taken: one truth for each."""
    own = [i for i, one in enumerate(taken) if one]
    return Choice(sum(items[i].saved for i in own), sum(items[i].damage for i in own), _bits(own))


def front(items: Sequence[Item]) -> list[Choice]:
    """All choices of which none saves at least as much for at most the damage; by bytes saved, from none to most."""
    states = [Choice(0, 0.0, 0)]
    for number, item in enumerate(items):
        if item.saved <= 0:
            continue
        bit = 1 << number
        taken = [Choice(state.saved + item.saved, state.damage + item.damage, state.taken | bit) for state in states]
        states = _undominated(states, taken)
    return states


def cheapest(choices: Sequence[Choice], saved: int) -> Choice | None:
    """Of a front: the choice of least damage that saves at least `saved`; None if none saves so much."""
    return next((choice for choice in choices if choice.saved >= saved), None)


EXCHANGED = 2
AMONG = 12
LARGE = 4
"""An item counts as large that saves at least this part of what the largest saves."""


def near(items: Sequence[Item], best: Choice, saved: int, count: int) -> list[Choice]:
    """Choices next to one: up to two items exchanged for up to two others, at least `saved` saved; least damage first.

    Exchanged are those that damage most, for those that damage least. Half of what is returned exchanges large items,
    each with the best choice of all small ones that goes with it: of these there are many, two may not make up for a
    large one, and alone they would crowd all else out.
    """
    most = max((item.saved for item in items), default=0)
    small = [Item(0, 0.0) if item.saved * LARGE >= most else item for item in items]
    large = _bits([i for i, item in enumerate(items) if item.saved * LARGE >= most])
    completions, found, apart = front(small), dict[int, Choice](), dict[int, Choice | None]()
    worst = sorted(best.items(), key=lambda i: -items[i].damage)[:AMONG]
    left = sorted((i for i in range(len(items)) if not best.taken >> i & 1), key=lambda i: items[i].damage)[:AMONG]
    for out in _some(worst):
        for into in _some(left):
            choice = _exchanged(items, best, out, into)
            if choice.saved >= saved:
                found[choice.taken] = choice
            pattern = choice.taken & large
            if pattern not in apart:
                kept = _exchanged(items, choice, [i for i in choice.items() if not large >> i & 1], [])
                rest = cheapest(completions, saved - kept.saved)
                apart[pattern] = (
                    None
                    if rest is None
                    else Choice(kept.saved + rest.saved, kept.damage + rest.damage, kept.taken | rest.taken)
                )
    chosen = _least((one for one in apart.values() if one is not None and one.taken != best.taken), count // 2)
    beside = {best.taken, *(one.taken for one in chosen)}
    return _least(
        [*chosen, *_least((one for one in found.values() if one.taken not in beside), count - len(chosen))], count
    )


def _exchanged(items: Sequence[Item], choice: Choice, out: Sequence[int], into: Sequence[int]) -> Choice:
    gained = sum(items[i].saved for i in into) - sum(items[i].saved for i in out)
    damage = sum(items[i].damage for i in into) - sum(items[i].damage for i in out)
    return Choice(choice.saved + gained, choice.damage + damage, choice.taken & ~_bits(out) | _bits(into))


def _least(choices: Iterable[Choice], count: int) -> list[Choice]:
    return sorted(choices, key=lambda choice: (choice.damage, choice.taken))[:count]


def _some(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(numbers, size) for size in range(EXCHANGED + 1))


def _bits(numbers: Sequence[int]) -> int:
    return sum(1 << number for number in numbers)


def _undominated(one: list[Choice], other: list[Choice]) -> list[Choice]:
    """Both fronts as one. From the largest saving down, a state stays if it has less damage than all before."""
    merged = sorted([*one, *other], key=lambda choice: (-choice.saved, choice.damage))
    kept: list[Choice] = []
    for choice in merged:
        if not kept or choice.damage < kept[-1].damage:
            kept.append(choice)
    return kept[::-1]
