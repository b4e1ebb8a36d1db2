"""The headroom rule: room above the largest activation seen, as much as costs nothing below.

A token larger than any seen is a matter of time, and clipping it ruins what follows (docs/activation-scales.md). How
large it will be, no calibration can say. What room costs can be said: it moves the floor up, and blocks under the floor
lose precision. So the floor goes as high as the blocks seen allow, and the ceiling, 28,672 times higher, with it.
"""

from math import ceil, log2

from halfbyte.calibrate.histogram import Histogram
from halfbyte.calibrate.shares import CEILING, shares

MOST_ADDED_ERROR = 0.01
"""Of the squared error that four bits cost anyway: no measurement on a model resolves it."""
LEAST_HEADROOM = 2.0
"""Even if the floor pays for it: beside a token that clips, lost precision of small blocks is the lesser damage."""


def headroom_scale(blocks: Histogram) -> float:
    """The largest power of two whose added error is within MOST_ADDED_ERROR; never less than LEAST_HEADROOM asks for.

    A power of two because the shares are exact then, and because an octave is as fine as the choice can be justified.
    Returns 0 without blocks.
    """
    if not blocks.blocks:
        return 0.0
    exponent = ceil(log2(LEAST_HEADROOM * blocks.largest / CEILING))
    while _added_error(blocks, 2.0 ** (exponent + 1)) <= MOST_ADDED_ERROR:
        exponent += 1
    return 2.0**exponent


def _added_error(blocks: Histogram, input_scale: float) -> float:
    found = shares(blocks, input_scale)
    assert found is not None
    return found.added_error
