"""What an `input_scale` does to blocks of activations: how many clip, how many lose precision, what that costs.

An engine gives each block of 16 activations the scale E4M3(amax / (6 * input_scale)). So an `input_scale` serves blocks
from its floor to its ceiling at full precision, a window of 28,672:

- above the ceiling, 2688 * input_scale, the scale stays 448 and the block clips
- from the floor, 6 * 2**-6 * input_scale, down, E4M3's steps shrink no more with the value: its subnormals
- at 6 * 2**-10 * input_scale and below the scale rounds to zero, and the block with it

Where `input_scale` is a power of two, these limits are edges of the histograms and all shares are exact.
"""

from dataclasses import dataclass

from halfbyte.calibrate.histogram import Histogram
from halfbyte.formats.nvfp4.format import E2M1_MAX, E4M3_MAX

CEILING = E2M1_MAX * E4M3_MAX
FLOOR = E2M1_MAX * 2.0**-6

ROUNDING_ERROR = 0.008
"""Squared error of activations in NVFP4 relative to their squares, between floor and ceiling: 0.0083 to 0.0091 for
blocks of normal, Laplace, Student-t and gated normal values, rounded down; as is printed by
`benchmarks/calibrate/activation_outliers.py`.
"""

ADDED_ERROR = (0.0022, 0.011, 0.031, 0.031, 1.0)
"""What a block loses beyond that, relative to its squares, in each octave below the floor; the last one vanishes.

The most of all kinds of blocks in `benchmarks/calibrate/activation_outliers.py`, rounded up. The fourth octave, where
the scale is always 2**-9, costs less than the third and counts as much.
"""


@dataclass(frozen=True)
class Shares:
    """Of the blocks that are not all zeros: clipped, with a subnormal scale, vanished (counted in subnormal too).

    subnormal_energy: share of a token's sum of squares in blocks with a subnormal scale, mean over tokens.
    added_error: what these blocks lose at most, as a share of ROUNDING_ERROR.
    """

    clipped: float
    subnormal: float
    vanished: float
    subnormal_energy: float
    added_error: float


def shares(blocks: Histogram, input_scale: float) -> Shares | None:
    """None if there are no blocks."""
    if not blocks.blocks:
        return None
    octaves = [blocks.up_to(FLOOR * input_scale / 2**octave) for octave in range(len(ADDED_ERROR))]
    below = [energy for _, energy in octaves] + [0.0]
    lost = sum(error * (below[i] - below[i + 1]) for i, error in enumerate(ADDED_ERROR))
    return Shares(
        clipped=blocks.above(CEILING * input_scale),
        subnormal=octaves[0][0],
        vanished=octaves[-1][0],
        subnormal_energy=octaves[0][1],
        added_error=lost / ROUNDING_ERROR,
    )
