"""MXFP4 to NVFP4 without loss: the codes are the same E2M1, so they are kept, and the scales are translated.

A block of 32 has the scale 2^e. NVFP4 writes it as (E4M3 scale) * `weight_scale_2`, twice, for its blocks of 16. E4M3
has the powers 2^-9 to 2^8 exactly, so with `weight_scale_2` = 2^(largest e - 8), over the linears that share it, every
block whose scale is within 2^17 of the largest one keeps its meaning. Smaller ones are encoded anew, and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.packed import Matrix, Packed, matrices_of
from halfbyte.formats import mxfp4
from halfbyte.formats.nvfp4.format import SCALE_ONE
from halfbyte.quantize.linears import Linear

SMALLEST, LARGEST = -9, 8
"""Exponents of the powers of two that E4M3 has."""

POWERS = np.array([0x01, 0x02, 0x04, *(exponent + 7 << 3 for exponent in range(-6, LARGEST + 1))], np.uint8)
"""E4M3 byte of 2^k, at k - SMALLEST."""

_MAGNITUDES = 0x77
"""Of both codes of a byte, without signs."""


def is_mxfp4(source: Matrix) -> TypeGuard[Packed]:
    return isinstance(source, Packed) and isinstance(source.form, mxfp4.Mxfp4)


def all_mxfp4(group: Sequence[Linear]) -> bool:
    """Whether linears that share a second scale can share a translation."""
    return all(is_mxfp4(matrix) for linear in group for matrix in matrices_of(linear.source))


def zero_blocks(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Of codes [n, K/2]: whether each of [n, K/32] blocks holds nothing but zeros."""
    magnitudes: npt.NDArray[np.uint8] = codes & np.uint8(_MAGNITUDES)
    used: npt.NDArray[np.bool_] = np.any(magnitudes.reshape(len(codes), -1, mxfp4.BLOCK_SIZE // 2), axis=-1)
    return ~used


def largest_exponent(codes: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> int | None:
    """Of the blocks that are not zero; None if all are. scales: E8M0 [n, K/32]."""
    used = scales[~zero_blocks(codes)]
    return int(used.max()) - mxfp4.BIAS if used.size else None


def second_scale(exponents: Iterable[int | None]) -> np.float32:
    """`weight_scale_2` of matrices with these largest exponents: a power of two, a normal number of float32."""
    known = [exponent for exponent in exponents if exponent is not None]
    return np.float32(2.0 ** max((max(known) if known else 0) - LARGEST, -126))


@dataclass(frozen=True)
class Translation:
    """exact: which of [n, K/32] blocks kept their codes. zero: which are zero."""

    exact: npt.NDArray[np.bool_]
    zero: npt.NDArray[np.bool_]


def translate(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
    scale_2: np.float32,
    out_codes: npt.NDArray[np.uint8],
    out_scales: npt.NDArray[np.uint8],
) -> Translation:
    """Put codes [n, K/2] and E4M3 scales [n, K/16] into the outputs wherever they say exactly what the source says.

    The outputs hold what encoding anew gives, which stays elsewhere.
    """
    rows, blocks = scales.shape
    exponents = scales.astype(np.int32) - mxfp4.BIAS - int(np.log2(scale_2))
    zero = zero_blocks(codes)
    exact = zero | ((exponents >= SMALLEST) & (exponents <= LARGEST))
    bytes_ = POWERS[np.clip(exponents - SMALLEST, 0, len(POWERS) - 1)]
    bytes_[zero] = SCALE_ONE
    by_block = out_codes.reshape(rows, blocks, mxfp4.BLOCK_SIZE // 2)
    by_block[exact] = codes.reshape(by_block.shape)[exact]
    out_scales.reshape(rows, blocks, 2)[exact] = bytes_[exact][:, None]
    return Translation(exact, zero)
