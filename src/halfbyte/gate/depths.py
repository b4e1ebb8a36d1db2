"""How much of a checkpoint is read: the headers, the scales too, or every byte."""

from typing import Literal

Depth = Literal["headers", "scales", "full"]
DEPTHS: tuple[Depth, ...] = ("headers", "scales", "full")


def reaches(depth: Depth, needed: Depth) -> bool:
    return DEPTHS.index(depth) >= DEPTHS.index(needed)
