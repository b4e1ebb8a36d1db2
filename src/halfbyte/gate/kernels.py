"""Counting in packed tensors: compiled, without the GIL, one pass over the bytes."""

import numpy as np
import numpy.typing as npt

from halfbyte.formats.nvfp4.kernels import jit
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE

CODE_BYTES = BLOCK_SIZE // 2


@jit
def count_bytes(values: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64]) -> None:
    """Add the histogram of `values` to `counts` [256]."""
    for value in values:
        counts[value] += 1


@jit
def count_codes(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
) -> None:
    """Histogram of code bytes into `counts` [256], and of blocks into `blocks` [2].

    blocks[0]: all codes zero. blocks[1]: a code that is not, under a scale of zero: the values are lost.
    """
    for block in range(scales.size):
        live = 0
        for i in range(block * CODE_BYTES, (block + 1) * CODE_BYTES):
            counts[codes[i]] += 1
            live |= codes[i] & 0x77
        if live == 0:
            blocks[0] += 1
        elif scales[block] & 0x7F == 0:
            blocks[1] += 1


@jit
def count_non_finite(values: npt.NDArray[np.uint16]) -> int:
    """How many of these BF16 numbers are NaN or Inf."""
    count = 0
    for value in values:
        count += (value & 0x7F80) == 0x7F80
    return count
