"""Compiled decoders of the formats that are read and not written: one pass over the bytes, GIL released.

Every value is a product of float32 numbers, rounded once, as numpy and torch would do it step by step.
"""

import numpy as np
import numpy.typing as npt

from halfbyte.formats.nvfp4.format import E2M1, E4M3
from halfbyte.formats.nvfp4.kernels import jit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_INT4 = np.arange(16, dtype=np.float32) - 8
_E8M0 = np.ldexp(np.float32(1), np.minimum(np.arange(256), 254) - 127)
"""float32 value of each E8M0 byte; 255, NaN, is refused before."""


def tiles_of_fp8(codes: Bytes, scales: Floats, tile: int) -> Floats:
    """codes: uint8 [N, K] of E4M3. scales: [ceil(N / tile), ceil(K / tile)]. Returns float32 [N, K]."""
    out = np.empty(codes.shape, np.float32)
    _fp8(codes, np.ascontiguousarray(scales, np.float32), tile, tile, E4M3, out)
    return out


def rows_of_fp8(codes: Bytes, scales: Floats) -> Floats:
    """codes: uint8 [N, K] of E4M3. scales: [N, 1], one for each row, or [1, 1]. Returns float32 [N, K]."""
    out = np.empty(codes.shape, np.float32)
    height = 1 if len(scales) == len(codes) else len(codes)
    _fp8(codes, np.ascontiguousarray(scales, np.float32), height, codes.shape[1], E4M3, out)
    return out


def groups_of_int4(packed: Bytes, scales: Floats, points: npt.NDArray[np.int8], group: int) -> Floats:
    """packed: uint8 [N, K/2], low nibble first, numbers plus 8. scales: [N, K/group]. points: int8 [N, K/group], or
    [1, 1] for none. Returns float32 [N, K]."""
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    _int4(packed, np.ascontiguousarray(scales, np.float32), np.ascontiguousarray(points), group, _INT4, out)
    return out


def blocks_of_mxfp4(packed: Bytes, exponents: Bytes) -> Floats:
    """packed: uint8 [N, K/2], low nibble first. exponents: uint8 [N, K/32], none of them 255.

    Returns float32 [N, K].
    """
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    _mxfp4(packed, exponents, E2M1, _E8M0, out)
    return out


def blocks_of_nvfp4(packed: Bytes, scales: Floats) -> Floats:
    """packed: uint8 [N, K/2], low nibble first. scales: [N, K/16]. Returns float32 [N, K]: code * scale."""
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    _nvfp4(packed, scales, E2M1, out)
    return out


@jit
def _fp8(codes, scales, height, width, table, out):  # type: ignore[no-untyped-def]
    for row in range(codes.shape[0]):
        for tile in range(scales.shape[1]):
            scale = scales[row // height, tile]
            for column in range(tile * width, min((tile + 1) * width, codes.shape[1])):
                out[row, column] = table[codes[row, column]] * scale


@jit
def _int4(packed, scales, points, group, table, out):  # type: ignore[no-untyped-def]
    none = points.shape[0] == 1 and points.shape[1] == 1 and points[0, 0] == 0
    for row in range(packed.shape[0]):
        for number in range(scales.shape[1]):
            scale = scales[row, number]
            point = np.float32(0) if none else np.float32(points[row, number])
            for byte in range(number * group // 2, (number + 1) * group // 2):
                out[row, 2 * byte] = (table[packed[row, byte] & 15] - point) * scale
                out[row, 2 * byte + 1] = (table[packed[row, byte] >> 4] - point) * scale


@jit
def _mxfp4(packed, exponents, codes, powers, out):  # type: ignore[no-untyped-def]
    for row in range(packed.shape[0]):
        for block in range(exponents.shape[1]):
            scale = powers[exponents[row, block]]
            for byte in range(16 * block, 16 * block + 16):
                out[row, 2 * byte] = codes[packed[row, byte] & 15] * scale
                out[row, 2 * byte + 1] = codes[packed[row, byte] >> 4] * scale


@jit
def _nvfp4(packed, scales, codes, out):  # type: ignore[no-untyped-def]
    for row in range(packed.shape[0]):
        for block in range(scales.shape[1]):
            scale = scales[row, block]
            for byte in range(8 * block, 8 * block + 8):
                out[row, 2 * byte] = codes[packed[row, byte] & 15] * scale
                out[row, 2 * byte + 1] = codes[packed[row, byte] >> 4] * scale
