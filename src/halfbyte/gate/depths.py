"""The depths of reading, in order."""

from typing import get_args

from halfbyte.recipes.policy import Depth

DEPTHS: tuple[Depth, ...] = get_args(Depth)


def reaches(depth: Depth, needed: Depth) -> bool:
    return DEPTHS.index(depth) >= DEPTHS.index(needed)
