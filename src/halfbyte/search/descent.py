"""From trades of least summed damage down to those of least damage: neighbours are measured until none is better."""

from collections.abc import Callable, Iterable, Sequence

from halfbyte.search.knapsack import Choice

ROUNDS = 4
"""Passes over the weights at most."""

Neighbours = Callable[[Choice], Sequence[Choice]]
Damage = dict[int, float]
"""By the groups that are taken, nats."""


def descend(
    starts: Sequence[tuple[Choice, Neighbours]],
    measure: Callable[[Sequence[Choice]], Sequence[float]],
    also: Iterable[Choice] = (),
) -> tuple[list[Choice], Damage]:
    """Of each start the choice that no neighbour of it was found to beat, and all that was measured.

    measure: damages of choices, in one pass over the weights. also: measured in the first pass.
    """
    known: Damage = {}
    bests, waiting = [start for start, _ in starts], [*also]
    for _ in range(ROUNDS):
        near = [[best, *neighbours(best)] for best, (_, neighbours) in zip(bests, starts, strict=True)]
        waiting += [choice for some in near for choice in some]
        asked = list({choice.taken: choice for choice in waiting if choice.taken not in known}.values())
        if not asked:
            break
        known |= dict(zip((choice.taken for choice in asked), measure(asked), strict=True))
        bests, waiting = [min(some, key=lambda choice: known[choice.taken]) for some in near], []
    return bests, known
