"""NVFP4 in plain numpy: slow, and meant to be believed by eye. `codec` must equal it bit for bit.

All arithmetic is float32 in the order ModelOpt 0.47 uses (`NVFP4QTensor.quantize`): a product is rounded before the
division, the division is a true one, exact midpoints go to the even code. The order is visible in the bytes.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from halfbyte.errors import NonFiniteError, UnsupportedError
from halfbyte.formats.nvfp4.format import (
    AMAX_TO_SCALE_2,
    BLOCK_SIZE,
    E2M1,
    E2M1_MAX,
    E4M3,
    E4M3_MAX,
    E4M3_MIN,
    SCALE_FIRST,
    SCALE_LAST,
    ZERO_TENSOR_SCALE_2,
)

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Encoded(NamedTuple):
    """One matrix [N, K] in NVFP4: `codes` uint8 [N, K/2], `scales` uint8 (E4M3 bits) [N, K/16], `scale_2` float32."""

    codes: Bytes
    scales: Bytes
    scale_2: np.float32


def scale_2_of(amax: float | np.float32, rounding: str = "max") -> np.float32:
    """`weight_scale_2` for a tensor (or gate and up together) whose largest magnitude is `amax`; never 0.

    max: amax / 2688, ModelOpt's. sweep: twice that, so that the block with the largest magnitude too finds the octave
    above the max rule's scale among the E4M3 bytes (under amax / 2688 it is at 448, the last). Twice and not less:
    every other block keeps exactly the scales to choose from that it had, one octave of bytes lower.
    """
    scale_2 = np.float32(amax) / AMAX_TO_SCALE_2
    if rounding == "sweep":
        scale_2 = scale_2 * np.float32(2)
    return scale_2 if scale_2 > 0 else ZERO_TENSOR_SCALE_2


def block_scales(blocks: Float32, scale_2: np.float32) -> Bytes:
    """E4M3 scale byte of each block by ModelOpt's rule: the block's amax maps to 6.

    blocks: float32 [..., 16]. Returns uint8 [...]. A block of zeros stores 1.0.
    """
    ratio = np.abs(blocks).max(-1) / (np.float32(E2M1_MAX) * scale_2)
    ratio = np.where(ratio == 0, np.float32(1), ratio)
    ratio = np.clip(ratio, np.float32(E4M3_MIN), np.float32(E4M3_MAX))
    return ratio.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def encode_e2m1(x: Float32) -> Bytes:
    """Nearest E2M1 code, ties to the even code; beyond 6 saturates. The sign bit is `x < 0`, so -0.0 gets code 0.

    x: float32, any shape, already divided by its scale. Returns uint8 codes 0..15, same shape.
    """
    magnitude = np.abs(x)
    code = np.zeros(x.shape, np.uint8)
    code += magnitude > 0.25
    code += magnitude >= 0.75
    code += magnitude > 1.25
    code += magnitude >= 1.75
    code += magnitude > 2.5
    code += magnitude >= 3.5
    code += magnitude > 5.0
    sign = (x < 0).astype(np.uint8) * np.uint8(8)
    return code | sign


def codes_for(blocks: Float32, scales: Bytes, scale_2: np.float32) -> Bytes:
    """Codes of blocks under given scales. blocks: float32 [..., 16], scales: uint8 [...]. Returns uint8 [..., 16]."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return encode_e2m1(blocks / (E4M3[scales] * scale_2)[..., None])


def squared_errors(blocks: Float32, scales: Bytes, scale_2: np.float32) -> Float32:
    """Squared error of each block under given scales: float32, lanes added as a tree (8, 4, 2, 1)."""
    step = (E4M3[scales] * scale_2)[..., None]
    lanes: Float32 = np.abs(blocks) - np.abs(E2M1[codes_for(blocks, scales, scale_2)]) * step
    return _tree_sum(lanes * lanes)


def _tree_sum(lanes: Float32) -> Float32:
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


SWEEP_BELOW, SWEEP_WIDTH = 8, 16
"""Which scale bytes are tried: this many below the max rule's, this many in all; shifted where they would leave the
126 legal ones. An octave has 8 E4M3 values, so this is half the scale to just under twice it. Wider gains nothing: at
twice the scale every element moves to a coarser code, at half of it the largest is clipped by half."""

SWEEP_RATIO_MAX = 2.0**40
"""Larger |w| / scale_2 count as this, so that errors stay finite. Under a scale_2 of one's own none exceeds 2,688."""

with np.errstate(divide="ignore"):
    UNDER_E4M3 = np.float32(1) / E4M3
SQUARED_E4M3 = E4M3 * E4M3


def sweep_errors(blocks: Float32, scales: Bytes, scale_2: np.float32, importance: Float32 | None = None) -> Float32:
    """Squared error of each block under given scales in units of scale_2**2, each element weighted by `importance`.

    Dividing by scale_2 first keeps the squares within float32 whatever the size of the weights; a product with the
    reciprocal of the scale is not the division that gives the code, but differs only where two codes are as good.
    blocks: float32 [..., 16], scales: uint8 [...], importance: float32 that broadcasts to blocks.
    Returns float32 [...].
    """
    with np.errstate(over="ignore"):
        ratios = np.minimum(np.abs(blocks) / scale_2, np.float32(SWEEP_RATIO_MAX))
    x = ratios * UNDER_E4M3[scales][..., None]
    residue = x - E2M1[encode_e2m1(x)]
    lanes = residue * residue
    errors: Float32 = _tree_sum(lanes if importance is None else lanes * importance) * SQUARED_E4M3[scales]
    return errors


def relative_importance(importance: npt.NDArray[np.generic], columns: int) -> Float32:
    """`importance` [columns] as float32 with a largest value of 1, so that weighted errors do not overflow.

    Raises UnsupportedError for another shape or a negative value, NonFiniteError for NaN or Inf.
    """
    if importance.shape != (columns,):
        raise UnsupportedError(
            f"importance: shape {list(importance.shape)}, wanted [{columns}], one value per column of the weight",
            hint="pass the mean square of each input of this linear",
        )
    values: Float32 = importance.astype(np.float32)
    for wrong, error in ((~np.isfinite(values), NonFiniteError), (values < 0, UnsupportedError)):
        if wrong.any():
            column = int(wrong.argmax())
            raise error(
                f"importance: {values[column]} at column {column}, wanted a finite number that is not negative",
                hint="it is a mean square of activations; look for NaN, Inf or overflow in the calibration",
            )
    largest = values.max(initial=0)
    if largest:
        values = (values / largest).astype(np.float32)
    return np.abs(values)  # no -0.0: the kernel orders errors by their bits


def sweep_scales(blocks: Float32, scale_2: np.float32, importance: Float32 | None = None) -> Bytes:
    """E4M3 scale byte of each block with the least error among the neighbours of the max rule's byte.

    Ties go to the max rule's own byte, then to the smallest. Shapes and arguments as `sweep_errors`.
    """
    start = block_scales(blocks, scale_2)
    first = np.clip(start.astype(np.int16) - SWEEP_BELOW, SCALE_FIRST, SCALE_LAST + 1 - SWEEP_WIDTH).astype(np.uint8)
    best, least = start.copy(), sweep_errors(blocks, start, scale_2, importance)
    for offset in range(SWEEP_WIDTH):
        candidate = first + np.uint8(offset)
        error = sweep_errors(blocks, candidate, scale_2, importance)
        better = error < least
        best, least = np.where(better, candidate, best), np.where(better, error, least)
    return best


def encode(
    weight: npt.NDArray[np.generic],
    scale_2: np.float32 | None = None,
    rounding: str = "max",
    importance: Float32 | None = None,
) -> Encoded:
    """Encode one matrix.

    weight: [N, K] of bfloat16 (ml_dtypes), float16 or float32; K a multiple of 16.
    scale_2: the tensor's `weight_scale_2` if it is shared (gate and up); by default `scale_2_of` its own amax.
    importance: float32 [K], weights of the squared errors that `sweep` makes least; only their ratios count.
    Raises UnsupportedError for a bad row length or importance, NonFiniteError for NaN or Inf.
    """
    rows, columns = weight.shape
    if columns % BLOCK_SIZE:
        raise UnsupportedError(f"row length {columns} is not a multiple of {BLOCK_SIZE}")
    w = weight.astype(np.float32)
    if not np.isfinite(w).all():
        raise NonFiniteError("cannot encode NaN or Inf as E2M1")
    if scale_2 is None:
        scale_2 = scale_2_of(np.abs(w).max(initial=0), rounding)
    blocks = w.reshape(rows, columns // BLOCK_SIZE, BLOCK_SIZE)
    if rounding == "sweep":
        weights = None if importance is None else relative_importance(importance, columns).reshape(-1, BLOCK_SIZE)
        scales = sweep_scales(blocks, scale_2, weights)
    else:
        scales = block_scales(blocks, scale_2)
    codes = codes_for(blocks, scales, scale_2).reshape(rows, columns)
    return Encoded(codes[:, 0::2] | codes[:, 1::2] * np.uint8(16), scales, scale_2)


def decode(encoded: Encoded) -> Float32:
    """float32 [N, K]: E2M1[code] * (scale * scale_2), the inner product rounded to float32 first."""
    codes, scales, scale_2 = encoded
    unpacked = np.stack([codes & 15, codes >> 4], axis=-1).reshape(codes.shape[0], -1, BLOCK_SIZE)
    values: Float32 = E2M1[unpacked] * (E4M3[scales] * scale_2)[..., None]
    return values.reshape(codes.shape[0], -1)
