"""The block of `GGML_TYPE_NVFP4`: ModelOpt's codes and block scales in llama.cpp's order, and back, bit for bit.

64 elements of a row take 36 bytes: the four E4M3 scale bytes of its 16-element blocks, then 8 bytes per block. Byte j
of a block holds element j in the low nibble and element j+8 in the high one, where ModelOpt's byte i holds elements 2i
and 2i+1. Source: `block_nvfp4` in ggml-common.h of llama.cpp (the copy in llama-cpp-python 0.3.36).

`pack_reference` and `unpack_reference` are meant to be believed by eye; `pack` and `unpack` must equal them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from halfbyte.formats.nvfp4.format import BLOCK_SIZE
from halfbyte.formats.nvfp4.kernels import jit

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]

ELEMENTS = 64
"""Elements of one row in a block; rows must be a multiple of it."""

BLOCK_BYTES = 36

SOUND, NEGATIVE, NOT_A_NUMBER = 0, 1, 2
"""What `pack` found among the block scales."""


class Packed(NamedTuple):
    """fault: SOUND, NEGATIVE or NOT_A_NUMBER. silenced: blocks whose scale is 0 although their codes are not."""

    fault: int
    silenced: int


def pack_reference(codes: Bytes, scales: Bytes) -> Bytes:
    """codes: [N, K/2] as ModelOpt packs them; scales: [N, K/16] E4M3 bytes. Returns [N, 36 * K/64]."""
    rows, columns = codes.shape[0], 2 * codes.shape[1]
    elements = np.stack([codes & 15, codes >> 4], axis=-1).reshape(rows, columns // ELEMENTS, 4, BLOCK_SIZE)
    halves = elements[..., :8] | elements[..., 8:] << 4
    grouped = scales.reshape(rows, columns // ELEMENTS, 4)
    return np.concatenate([grouped, halves.reshape(rows, columns // ELEMENTS, 32)], axis=-1).reshape(rows, -1)


def unpack_reference(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Undo `pack_reference`: codes [N, K/2] and scales [N, K/16] from [N, 36 * K/64]."""
    rows, groups = blocks.shape[0], blocks.shape[1] // BLOCK_BYTES
    grouped = blocks.reshape(rows, groups, BLOCK_BYTES)
    scales, halves = grouped[..., :4], grouped[..., 4:].reshape(rows, groups, 4, 8)
    elements = np.concatenate([halves & 15, halves >> 4], axis=-1).reshape(rows, groups * ELEMENTS)
    return elements[:, 0::2] | elements[:, 1::2] << 4, scales.reshape(rows, groups * 4)


def pack(codes: Bytes, scales: Bytes, out: Bytes) -> Packed:
    """`pack_reference` into `out`, all three flat and contiguous, their lengths multiples of 32, 4 and 36 bytes.

    Shapes do not matter here, since rows are whole blocks. The content is complete whatever the fault; a scale with
    its sign bit set is a fault because ggml reads the byte as unsigned.
    """
    return Packed(*_pack(codes.view(np.uint32), scales.view(np.uint32), out.view(np.uint32)))


def unpack(blocks: Bytes, codes: Bytes, scales: Bytes) -> None:
    """Undo `pack`: fill `codes` and `scales` from `blocks`, all flat and contiguous."""
    _unpack(blocks.view(np.uint32), codes.view(np.uint32), scales.view(np.uint32))


@jit
def _pack(codes: Words, scales: Words, out: Words) -> tuple[int, int]:
    signs, numbers, silenced = np.uint64(0), np.uint64(0), 0
    for group in range(len(scales)):
        four = np.uint64(scales[group])
        signs |= four & np.uint64(0x80808080)
        numbers |= (four & np.uint64(0x7F7F7F7F)) + np.uint64(0x01010101)  # carries into bit 7 for 0x7F, NaN, alone
        out[9 * group] = scales[group]
        for block in range(4):
            low, high = np.uint64(codes[8 * group + 2 * block]), np.uint64(codes[8 * group + 2 * block + 1])
            mixed = _spread(low) | _spread(high) << np.uint64(4)
            out[9 * group + 1 + 2 * block] = np.uint32(mixed)
            out[9 * group + 2 + 2 * block] = np.uint32(mixed >> np.uint64(32))
            if four >> np.uint64(8 * block) & np.uint64(0xFF) == 0 and (low | high) & np.uint64(0x77777777):
                silenced += 1
    return (NOT_A_NUMBER if numbers & np.uint64(0x80808080) else NEGATIVE if signs else SOUND), silenced


@jit
def _unpack(blocks: Words, codes: Words, scales: Words) -> None:
    for group in range(len(scales)):
        scales[group] = blocks[9 * group]
        for block in range(4):
            first, second = blocks[9 * group + 1 + 2 * block], blocks[9 * group + 2 + 2 * block]
            mixed = np.uint64(first) | np.uint64(second) << np.uint64(32)
            codes[8 * group + 2 * block] = np.uint32(_gather(mixed))
            codes[8 * group + 2 * block + 1] = np.uint32(_gather(mixed >> np.uint64(4)))


@jit
def _spread(word: np.uint64) -> np.uint64:
    """Nibble j of the low 32 bits moves to the low half of byte j."""
    word = (word | word << np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    word = (word | word << np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    return (word | word << np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)


@jit
def _gather(word: np.uint64) -> np.uint64:
    """Undo `_spread`; the high halves of the bytes are ignored."""
    word &= np.uint64(0x0F0F0F0F0F0F0F0F)
    word = (word | word >> np.uint64(4)) & np.uint64(0x00FF00FF00FF00FF)
    word = (word | word >> np.uint64(8)) & np.uint64(0x0000FFFF0000FFFF)
    return (word | word >> np.uint64(16)) & np.uint64(0x00000000FFFFFFFF)
