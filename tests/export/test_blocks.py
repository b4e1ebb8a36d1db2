"""The rearrangement of NVFP4 codes and scales: kernel against the plain reference, both ways, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halfbyte.export import blocks
from halfbyte.formats.nvfp4.reference import Encoded, decode

E2M1_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, K/2] and valid block scales [N, K/16]."""
    rows, groups = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    codes = draw(arrays(np.uint8, (rows, 32 * groups)))
    return codes, draw(arrays(np.uint8, (rows, 4 * groups), elements=st.integers(0, 0x7E)))


def packed(codes: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, blocks.Packed]:
    out = np.full(codes.size // 32 * blocks.BLOCK_BYTES, 0xAA, np.uint8)
    return out, blocks.pack(codes.reshape(-1), scales.reshape(-1), out)


@settings(deadline=None)  # the first call compiles
@given(matrices())
def test_pack_equals_the_reference(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    out, found = packed(*matrix)
    assert out.tobytes() == blocks.pack_reference(*matrix).tobytes()
    assert found.fault == blocks.SOUND


@settings(deadline=None)  # the first call compiles
@given(matrices())
def test_round_trip_gives_back_every_bit(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    codes, scales = matrix
    out, _ = packed(codes, scales)
    again = np.full(codes.size, 0xAA, np.uint8), np.full(scales.size, 0xAA, np.uint8)
    blocks.unpack(out, *again)
    assert (again[0].tobytes(), again[1].tobytes()) == (codes.tobytes(), scales.tobytes())
    plain = blocks.unpack_reference(out.reshape(len(codes), -1))
    assert (plain[0].tobytes(), plain[1].tobytes()) == (codes.tobytes(), scales.tobytes())


@settings(deadline=None)  # the first call compiles
@given(arrays(np.uint8, (2, 72)))
def test_unpack_then_pack_gives_back_any_blocks(stored: np.ndarray) -> None:
    codes, scales = blocks.unpack_reference(stored)
    out, _ = packed(np.ascontiguousarray(codes), np.ascontiguousarray(scales))
    assert out.tobytes() == stored.tobytes()


@settings(deadline=None)  # the first call compiles
@given(matrices())
def test_ggmls_decoding_of_a_block_equals_modelopts(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    """Decode as `dequantize_row_nvfp4` does, element by element: twice the E2M1 value times half the scale."""
    codes, scales = matrix
    out, _ = packed(codes, scales)
    wanted = decode(Encoded(codes, scales, np.float32(1)))
    e4m3 = {
        byte: np.ldexp(byte & 7, -9) if byte < 8 else np.ldexp(8 + (byte & 7), (byte >> 3) - 10) for byte in range(128)
    }
    got = np.empty_like(wanted).reshape(-1)
    for group, block in enumerate(out.reshape(-1, blocks.BLOCK_BYTES)):
        for sub in range(4):
            half = np.float32(e4m3[int(block[sub])] / 2)
            for j in range(8):
                byte = int(block[4 + 8 * sub + j])
                got[64 * group + 16 * sub + j] = E2M1_TWICE[byte & 15] * half
                got[64 * group + 16 * sub + j + 8] = E2M1_TWICE[byte >> 4] * half
    assert np.array_equal(got, wanted.reshape(-1))


@pytest.mark.parametrize(
    ("byte", "fault"), [(0x7F, blocks.NOT_A_NUMBER), (0xFF, blocks.NOT_A_NUMBER), (0x80, blocks.NEGATIVE)]
)
@pytest.mark.parametrize("position", range(8))
def test_one_bad_scale_anywhere_is_found(byte: int, fault: int, position: int) -> None:
    scales = np.full((1, 8), 0x38, np.uint8)
    scales[0, position] = byte
    assert packed(np.zeros((1, 64), np.uint8), scales)[1].fault == fault


def test_every_sound_scale_is_let_through() -> None:
    scales = np.array([*range(0x7F), 0x38], np.uint8).reshape(1, -1)
    assert packed(np.zeros((1, scales.size * 8), np.uint8), scales)[1] == (blocks.SOUND, 0)


def test_zero_scales_over_codes_are_counted() -> None:
    codes, scales = np.zeros((1, 64), np.uint8), np.zeros((1, 8), np.uint8)
    codes[0, 8 * 3] = 0x10  # block 3 holds 0.5
    codes[0, 8 * 5] = 0x88  # block 5 holds -0 only
    assert packed(codes, scales)[1] == (blocks.SOUND, 1)
