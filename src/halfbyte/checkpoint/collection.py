"""Garbage collection while a million small objects are made, as when all headers of a large checkpoint are read."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """All objects made inside are kept for long, so each collection meanwhile would scan them for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()  # what was made stays until the end: no later collection need look at it
            gc.enable()
