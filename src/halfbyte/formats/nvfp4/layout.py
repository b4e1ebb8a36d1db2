"""The layout constants of NVFP4 that need no arithmetic, for code that reads headers only."""

from math import prod

BLOCK_SIZE = 16
"""Elements that share one block scale."""


def packed_bytes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of codes and of block scales of a matrix of logical `shape` [N, K]."""
    elements = prod(shape)
    return elements // 2, elements // BLOCK_SIZE
