"""Compiled NVFP4 kernels: single-threaded, GIL released, bit-equal with `reference`. `codec` is the way in.

BF16 has only 32,768 magnitudes, so under a given `weight_scale_2` the scale byte of a block is one table look-up by
the block's largest magnitude, and an element's code is seven integer comparisons with thresholds that belong to that
scale byte. The tables are found with the reference's own float32 division, a few microseconds per tensor, and make
the bulk of the work exact by construction. float32 (and float16) weights take the same steps in floating point.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from halfbyte.formats.nvfp4 import format, reference, vector, vector_float, vector_sweep
from halfbyte.formats.nvfp4.format import (
    AMAX_TO_SCALE_2,
    BLOCK_SIZE,
    E2M1,
    E4M3,
    E4M3_MAX,
    E4M3_MIN,
    SCALE_FIRST,
    SCALE_LAST,
    SCALE_ONE,
)
from halfbyte.formats.nvfp4.reference import SQUARED_E4M3, SWEEP_BELOW, SWEEP_WIDTH, UNDER_E4M3

MIDPOINTS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)
TIE_GOES_UP = np.array([False, True, False, True, False, True, False])
"""Whether the midpoint itself belongs to the upper code: ties go to the even code."""

MAGNITUDES = 0x7F80
"""Number of finite BF16 magnitudes; 0x7F80 itself is Inf."""

TILE = 32
"""Blocks that go through the steps of encoding together."""

SWEEP_TABLE = np.concatenate([UNDER_E4M3[:128], SQUARED_E4M3[:128]])
"""What `vector_sweep.best_scale` reads, by scale byte."""

assert E2M1[7] * E4M3[SCALE_LAST] == AMAX_TO_SCALE_2
assert SWEEP_WIDTH == vector.LANES


def jit(function: Any) -> Any:
    """njit without the GIL, compiled once per machine; in memory only where no cache folder can be written."""
    try:
        compiled: Any = njit(nogil=True, cache=True, error_model="numpy")(function)
        # numba compiles anew when this file changes, but `vector` and the constants are compiled in too
        index = compiled._cache._cache_file
        index._source_stamp = (index._source_stamp, _compiled_in())
        return compiled
    except (RuntimeError, AttributeError):  # no writable place for numba's cache, or another numba inside
        return njit(nogil=True, error_model="numpy")(function)


@cache
def _compiled_in() -> bytes:
    """Digest of the other sources that end up in the machine code."""
    paths = (Path(str(module.__file__)) for module in (vector, vector_float, vector_sweep, format, reference))
    return sha256(b"".join(path.read_bytes() for path in paths)).digest()


class Tables(NamedTuple):
    """What one `weight_scale_2` makes of BF16.

    scale_of: uint8 [32768], E4M3 byte of a block by its largest magnitude.
    thresholds: int16 [128, 8], by scale byte: smallest magnitude that reaches code k + 1; the eighth is padding.
    half_steps: float32 [128], scale * scale_2 / 2 by scale byte.
    clamp_below: blocks whose largest magnitude is positive and below this had their scale clamped up to 2**-9.
    """

    scale_of: npt.NDArray[np.uint8]
    thresholds: npt.NDArray[np.int16]
    half_steps: npt.NDArray[np.float32]
    clamp_below: int


class Sums(NamedTuple):
    """What encoding measured over some blocks: sums over elements, counts of blocks.

    squared_error: of what was written. max_error: of what the max rule would have written; equal unless swept.
    """

    squared_error: float
    max_error: float
    energy: float
    clamped_blocks: int
    zero_blocks: int


@jit
def e4m3_of(ratio: np.float32) -> int:
    """E4M3 byte of a ratio already clamped to [2**-9, 448]: round to nearest, ties to even."""
    if ratio < np.float32(2.0**-6):  # subnormal: multiples of 2**-9
        return int(np.rint(ratio * np.float32(512)))
    bits = np.float32(ratio).view(np.int32)
    return (bits + 0x7FFFF + ((bits >> 20) & 1) >> 20) - (120 << 3)


@jit
def block_scale(amax: np.float32, scale_2: np.float32) -> tuple[int, bool]:
    """Scale byte of a block by the max rule, and whether it was clamped up."""
    if amax == 0:
        return SCALE_ONE, False
    ratio = np.float32(amax / np.float32(np.float32(6) * scale_2))
    if ratio == 0:  # the quotient underflowed; ModelOpt cannot tell this from an all-zero block
        return SCALE_ONE, True
    clamped = ratio < np.float32(E4M3_MIN)
    return e4m3_of(min(max(ratio, np.float32(E4M3_MIN)), np.float32(E4M3_MAX))), clamped


@jit
def code_of(magnitude: np.float32, step: np.float32) -> int:
    """E2M1 magnitude code of one element; step = scale * scale_2."""
    x = np.float32(magnitude / step)
    code = 0
    for k in range(7):
        if x > MIDPOINTS[k] or (TIE_GOES_UP[k] and x == MIDPOINTS[k]):
            code += 1
    return code


@jit
def _bf16(magnitude: int) -> np.float32:
    return np.int32(magnitude << 16).view(np.float32)


@jit
def build_tables(scale_2: np.float32) -> Tables:
    """Tables for one `weight_scale_2` (float32, positive). See Tables."""
    scale_of = np.empty(32768, np.uint8)
    clamp_below = 0
    for magnitude in range(MAGNITUDES):
        byte, clamped = block_scale(_bf16(magnitude), scale_2)
        scale_of[magnitude] = byte
        if clamped:
            clamp_below = magnitude + 1
    scale_of[MAGNITUDES:] = SCALE_LAST
    thresholds = np.full((128, 8), 0x7FFF, np.int16)
    half_steps = np.zeros(128, np.float32)
    for byte in range(SCALE_FIRST, SCALE_LAST + 1):
        step = np.float32(E4M3[byte] * scale_2)
        half_steps[byte] = step * np.float32(0.5)
        for k in range(7):
            near = np.float32(MIDPOINTS[k] * step).view(np.int32) >> 16
            magnitude = max(0, min(near, MAGNITUDES) - 1)
            while magnitude < MAGNITUDES and code_of(_bf16(magnitude), step) <= k:
                magnitude += 1
            thresholds[byte, k] = magnitude
    return Tables(scale_of, thresholds, half_steps, clamp_below)


@jit
def largest_bf16(bits: npt.NDArray[np.uint16]) -> int:
    """Largest magnitude, as BF16 bits, of a flat array whose size is a multiple of 16; 0x7F80 and above: not finite."""
    return int(vector.largest_magnitude(bits.ctypes.data, bits.size))


@jit
def encode_bf16(
    bits: npt.NDArray[np.uint16],
    tables: Tables,
    scale_2: np.float32,
    sweep: bool,
    importance: npt.NDArray[np.float32],
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
) -> Sums:
    """Encode flat BF16 `bits` (finite, size a multiple of 16) into `codes` (size / 2) and `scales` (size / 16).

    importance: float32 [row length], what the sweep weights squared errors by; empty for equal weights.
    Measures on the way, unweighted: lanes are summed in float32 over 256 blocks, then in float64.
    """
    source, destination, rows = bits.ctypes.data, codes.ctypes.data, tables.thresholds.ctypes.data
    lanes, ratios = np.zeros(2 * BLOCK_SIZE, np.float32), np.empty(BLOCK_SIZE * TILE, np.float32)
    squared_error, max_error, energy, clamped, zero = 0.0, 0.0, 0.0, 0, 0
    for begin in range(0, scales.size, TILE):
        end = min(begin + TILE, scales.size)
        for block in range(begin, end):
            at = source + 32 * block
            magnitude = vector.block_magnitude(at)
            byte = np.int64(tables.scale_of[magnitude])
            if magnitude < tables.clamp_below:
                clamped += magnitude > 0
            zero += magnitude == 0
            scales[block] = byte
            if sweep:
                max_error += vector.block_error(at, rows + 16 * byte, tables.half_steps[byte])
                vector_sweep.bf16_ratios(at, scale_2, ratios.ctypes.data + 64 * (block - begin))
        if sweep:
            _sweep(ratios, importance, begin, end, scales)
        for block in range(begin, end):
            byte = np.int64(scales[block])
            thresholds, half_step = rows + 16 * byte, tables.half_steps[byte]
            vector.encode_block(source + 32 * block, thresholds, destination + 8 * block, half_step, lanes.ctypes.data)
        if end % 256 == 0 or end == scales.size:
            for i in range(BLOCK_SIZE):
                squared_error += lanes[i]
                energy += lanes[BLOCK_SIZE + i]
            lanes[:] = 0
    return Sums(squared_error, max_error if sweep else squared_error, energy, clamped, zero)


@jit
def _sweep(
    ratios: npt.NDArray[np.float32],
    importance: npt.NDArray[np.float32],
    begin: int,
    end: int,
    scales: npt.NDArray[np.uint8],
) -> None:
    """Replace the max rule's bytes `scales[begin:end]` by the best ones; see `reference.sweep_scales`.

    A loop of its own over a tile: beside the loads and stores of encoding it runs at half the speed.
    """
    source, table = ratios.ctypes.data, SWEEP_TABLE.ctypes.data
    column = BLOCK_SIZE * begin % importance.size if importance.size else 0
    for block in range(begin, end):
        at, start = source + 64 * (block - begin), np.int64(scales[block])
        first = min(max(start - SWEEP_BELOW, SCALE_FIRST), SCALE_LAST + 1 - SWEEP_WIDTH)
        if importance.size:
            scales[block] = vector_sweep.weighted_best_scale(
                at, importance.ctypes.data + 4 * column, table, first, start
            )
            column = column + BLOCK_SIZE if column + BLOCK_SIZE < importance.size else 0
        else:
            scales[block] = vector_sweep.best_scale(at, table, first, start)


@jit
def encode_float(
    values: npt.NDArray[np.float32],
    scale_2: np.float32,
    sweep: bool,
    importance: npt.NDArray[np.float32],
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
) -> Sums:
    """Encode flat, finite float32 `values` (size a multiple of 16); the rest as `encode_bf16`."""
    source, destination = values.ctypes.data, codes.ctypes.data
    lanes, ratios = np.zeros(2 * BLOCK_SIZE, np.float64), np.empty(BLOCK_SIZE * TILE, np.float32)
    max_error, clamped, zero = 0.0, 0, 0
    for begin in range(0, scales.size, TILE):
        end = min(begin + TILE, scales.size)
        for block in range(begin, end):
            at = source + 64 * block
            amax = vector_float.float_block_magnitude(at)
            byte, was_clamped = block_scale(amax, scale_2)
            clamped += was_clamped
            zero += amax == 0
            scales[block] = byte
            if sweep:
                max_error += vector_float.float_block_error(at, np.float32(E4M3[byte] * scale_2))
                vector_sweep.float_ratios(at, scale_2, ratios.ctypes.data + 64 * (block - begin))
        if sweep:
            _sweep(ratios, importance, begin, end, scales)
        for block in range(begin, end):
            step = np.float32(E4M3[scales[block]] * scale_2)
            vector_float.encode_float_block(source + 64 * block, step, destination + 8 * block, lanes.ctypes.data)
    squared_error, energy = 0.0, 0.0
    for i in range(BLOCK_SIZE):
        squared_error += lanes[i]
        energy += lanes[BLOCK_SIZE + i]
    return Sums(squared_error, max_error if sweep else squared_error, energy, clamped, zero)


@jit
def decode(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
    scale_2: np.float32,
    values: npt.NDArray[np.float32],
) -> None:
    """Decode flat `codes` (size / 2) and `scales` (size / 16) into flat float32 `values`."""
    source, destination = codes.ctypes.data, values.ctypes.data
    for block in range(scales.size):
        vector.decode_block(source + 8 * block, np.float32(E4M3[scales[block]] * scale_2), destination + 64 * block)
