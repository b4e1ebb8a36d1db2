"""Compiled decoders of the formats that are read and not written: one pass over the bytes, GIL released.

Every value is a product of float32 numbers, rounded once, as numpy and torch would do it step by step.
"""

import numpy as np
import numpy.typing as npt

from halfbyte.formats.nvfp4 import vector
from halfbyte.formats.nvfp4.kernels import jit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_E8M0 = np.ldexp(np.float32(1), np.minimum(np.arange(256), 254) - 127)
"""float32 value of each E8M0 byte; 255, NaN, is refused before."""


def tiles_of_fp8(codes: Bytes, scales: Floats, tile: int) -> Floats:
    """codes: uint8 [N, K] of E4M3. scales: [ceil(N / tile), ceil(K / tile)]. Returns float32 [N, K]."""
    out = np.empty(codes.shape, np.float32)
    _fp8(codes, np.ascontiguousarray(scales, np.float32), tile, tile, out)
    return out


def rows_of_fp8(codes: Bytes, scales: Floats) -> Floats:
    """codes: uint8 [N, K] of E4M3. scales: [N, 1], one for each row, or [1, 1]. Returns float32 [N, K]."""
    out = np.empty(codes.shape, np.float32)
    height = 1 if len(scales) == len(codes) else len(codes)
    _fp8(codes, np.ascontiguousarray(scales, np.float32), height, codes.shape[1], out)
    return out


def groups_of_int4(packed: Bytes, scales: Floats, points: npt.NDArray[np.int8] | None, group: int) -> Floats:
    """packed: uint8 [N, K/2], low nibble first, numbers plus 8. scales: [N, K/group]. points: int8 [N, K/group], None
    for none. Returns float32 [N, K]."""
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    scales = np.ascontiguousarray(scales, np.float32)
    if points is None:
        _int4(packed, scales, group, out)
    else:
        _int4_with_points(packed, scales, np.ascontiguousarray(points), group, out)
    return out


def blocks_of_mxfp4(packed: Bytes, exponents: Bytes) -> Floats:
    """packed: uint8 [N, K/2], low nibble first. exponents: uint8 [N, K/32], none of them 255.

    Returns float32 [N, K].
    """
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    _e2m1(np.ascontiguousarray(packed).reshape(-1), _E8M0[exponents.reshape(-1)], 2, out.reshape(-1))
    return out


def blocks_of_nvfp4(packed: Bytes, scales: Floats) -> Floats:
    """packed: uint8 [N, K/2], low nibble first. scales: [N, K/16]. Returns float32 [N, K]: code * scale."""
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.float32)
    steps = np.ascontiguousarray(scales, np.float32).reshape(-1)
    _e2m1(np.ascontiguousarray(packed).reshape(-1), steps, 1, out.reshape(-1))
    return out


@jit
def _fp8(codes, scales, height, width, out):  # type: ignore[no-untyped-def]
    """Arithmetic, not a table: it runs in vectors. A magnitude is a whole number of 2^-9, (8 n + m) << (e - n) with
    n = 1 but for subnormals, so that no float on the way is one; unsigned throughout, for signed words do not."""
    one, three, seven, eight = np.uint32(1), np.uint32(3), np.uint32(7), np.uint32(8)
    exponents, magnitude, sign = np.uint32(15), np.uint32(127), np.uint32(128)
    unit = np.float32(2.0**-9)
    for row in range(codes.shape[0]):
        for tile in range(scales.shape[1]):
            scale = scales[row // height, tile]
            own = codes[row, tile * width : (tile + 1) * width]
            numbers = out[row, tile * width : (tile + 1) * width]
            for column in range(len(own)):
                code = np.uint32(own[column])
                exponent = (code >> three) & exponents
                normal = min(exponent, one)
                whole = (eight * normal + (code & seven)) << (exponent - normal)
                number = np.float32(np.int32(whole)) * unit
                number = np.float32(np.nan) if (code & magnitude) == magnitude else number
                numbers[column] = (-number if code & sign else number) * scale


@jit
def _int4(packed, scales, group, out):  # type: ignore[no-untyped-def]
    for row in range(packed.shape[0]):
        for number in range(scales.shape[1]):
            scale = scales[row, number]
            own = packed[row, number * group // 2 : (number + 1) * group // 2]
            numbers = out[row, number * group : (number + 1) * group]
            for byte in range(len(own)):
                both = np.int32(own[byte])
                numbers[2 * byte] = np.float32((both & 15) - 8) * scale
                numbers[2 * byte + 1] = np.float32((both >> 4) - 8) * scale


@jit
def _int4_with_points(packed, scales, points, group, out):  # type: ignore[no-untyped-def]
    for row in range(packed.shape[0]):
        for number in range(scales.shape[1]):
            scale, point = scales[row, number], np.int32(points[row, number]) + 8
            own = packed[row, number * group // 2 : (number + 1) * group // 2]
            numbers = out[row, number * group : (number + 1) * group]
            for byte in range(len(own)):
                both = np.int32(own[byte])
                numbers[2 * byte] = np.float32((both & 15) - point) * scale
                numbers[2 * byte + 1] = np.float32((both >> 4) - point) * scale


@jit
def _e2m1(packed, steps, together, out):  # type: ignore[no-untyped-def]
    """Flat. steps: of each `together` blocks of 16 elements."""
    source, destination = packed.ctypes.data, out.ctypes.data
    for number in range(steps.size):
        for block in range(together * number, together * number + together):
            vector.decode_signed_block(source + 8 * block, steps[number], destination + 64 * block)  # type: ignore[call-arg]
