"""Formats that a group can take: what they cost in bytes and what they do to the numbers. New formats go here.

A format that `quantize` can write is a choice of the search (`CHOICES`); the others serve as yardsticks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.inventory import FP8_TILE
from halfbyte.formats.nvfp4.codec import Weight, amax, decode, encode
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.reference import scale_2_of

Decoded = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """bytes: of one matrix [N, K] with its scales. rounded: matrices that share a scale -> what is left of them."""

    name: str
    bytes: Callable[[tuple[int, int]], int]
    rounded: Callable[[Sequence[Weight]], list[Decoded]]


def _nvfp4_bytes(shape: tuple[int, int]) -> int:
    """Codes, block scales, weight_scale_2 and input_scale."""
    elements = shape[0] * shape[1]
    return elements // 2 + elements // BLOCK_SIZE + 8


def _nvfp4(weights: Sequence[Weight]) -> list[Decoded]:
    scale_2 = scale_2_of(max(amax(np.ascontiguousarray(weight)) for weight in weights))
    return [decode(encode(weight, scale_2)[0]) for weight in weights]


def _fp8_bytes(shape: tuple[int, int]) -> int:
    tiles = -(-shape[0] // FP8_TILE) * -(-shape[1] // FP8_TILE)
    return shape[0] * shape[1] + 4 * tiles


def _fp8(weights: Sequence[Weight]) -> list[Decoded]:
    """E4M3 with one float32 scale, amax / 448, for each 128 x 128 tile (DeepSeek-V3's block FP8)."""
    decoded = []
    for weight in weights:
        values = weight.astype(np.float32)
        for row in range(0, values.shape[0], FP8_TILE):
            for column in range(0, values.shape[1], FP8_TILE):
                tile = values[row : row + FP8_TILE, column : column + FP8_TILE]
                scale = np.float32(np.abs(tile).max() / 448) or np.float32(1)
                tile[:] = (tile / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        decoded.append(values)
    return decoded


NVFP4 = Format("nvfp4", _nvfp4_bytes, _nvfp4)
FP8_BLOCK = Format("fp8-block", _fp8_bytes, _fp8)
CHOICES = (NVFP4,)
