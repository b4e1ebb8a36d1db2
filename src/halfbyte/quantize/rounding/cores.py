"""How rounding uses the cores of a machine: experts side by side, each on one thread.

Matrices of experts are small, and threads that share one wait for each other at every step: for a core that is busy
elsewhere, on a shared machine. One thread each also makes the bytes the same on any number of cores.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from halfbyte.process import cores

MOST = 16
COPIES = 12
"""float32 matrices [K, K] and [N, K] alive while one expert is rounded: moments, factor, grids, both inputs."""


def experts_at_a_time(device: str, hidden: int, width: int, memory_budget: int | None) -> int:
    """On a CPU as many as there are cores, within a quarter of the budget; on a GPU one, which fills it."""
    if device != "cpu":
        return 1
    at_most = min(cores(), MOST)
    if memory_budget is None:
        return at_most
    each = 4 * COPIES * max(hidden, width) * (hidden + width)
    return max(1, min(at_most, memory_budget // 4 // each))


@contextmanager
def one_thread_each(device: str) -> Iterator[None]:
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
