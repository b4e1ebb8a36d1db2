"""The second scales from one layout to the other: ModelOpt multiplies by them, compressed-tensors divides.

1 / (1 / x) is not x for every float32, so what would not come back is kept, bits and shape, and used on the way back.
"""

from collections.abc import Mapping

import numpy as np

from halfbyte.errors import CheckpointError
from halfbyte.evidence.conversion import OriginalScale


def inverse(value: np.float32, name: str) -> np.float32:
    """1 / value, rounded once. Raises CheckpointError for a value that has none, or whose inverse is none."""
    with np.errstate(all="ignore"):
        found = np.float32(1) / value
    if not (np.isfinite(value) and value > 0 and np.isfinite(found) and found > 0):
        raise CheckpointError(f"{name}: is {value}, wanted a finite number above 0 whose inverse is one too")
    return np.float32(found)


def converted(
    value: np.float32, name: str, shape: tuple[int, ...], plain: tuple[int, ...], originals: Mapping[str, OriginalScale]
) -> tuple[np.float32, OriginalScale | None]:
    """The scale in the other layout, and what must be kept of this one, if anything.

    shape: of the scale as it is stored; plain: as this layout's writers store it. originals: kept by the conversion
    that made this checkpoint, by this name.
    """
    other = inverse(value, name)
    kept = originals.get(name)
    if kept is not None and inverse(kept.number, name) == value:
        other = kept.number
    lost = inverse(other, name) != value or shape != plain
    return other, OriginalScale.of(value, shape) if lost else None
