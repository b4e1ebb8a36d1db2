"""The format itself: all 16 codes, every midpoint and both its neighbours, all 256 scale bytes."""

import numpy as np
import pytest

from halfbyte.errors import NonFiniteError
from halfbyte.formats.nvfp4 import codec, reference
from halfbyte.formats.nvfp4.format import E2M1, E4M3
from halfbyte.formats.nvfp4.layout import packed_bytes
from halfbyte.formats.nvfp4.reference import Encoded

from .golden import bits

# midpoint -> code just below, at (ties to even), and just above it
MIDPOINTS = {
    0.25: (0, 0, 1),
    0.75: (1, 2, 2),
    1.25: (2, 2, 3),
    1.75: (3, 4, 4),
    2.5: (4, 4, 5),
    3.5: (5, 6, 6),
    5.0: (6, 6, 7),
}
SCALE_2 = [np.float32(s) for s in (2.0**-12, 1.2345e-4, 1e-40, 2.0**-149, 1e30)]


@pytest.mark.parametrize(("midpoint", "codes"), MIDPOINTS.items())
def test_midpoints(midpoint: float, codes: tuple[int, int, int]) -> None:
    at = np.float32(midpoint)
    probes = np.array([np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(9))])
    assert tuple(reference.encode_e2m1(probes)) == codes
    negative = tuple(code | 8 for code in codes)
    assert tuple(reference.encode_e2m1(-probes)) == negative


@pytest.mark.parametrize(
    ("value", "code"), [(0.0, 0), (-0.0, 0), (-1e-30, 8), (6, 7), (6.01, 7), (1e30, 7), (-7, 15), (np.inf, 7)]
)
def test_ends(value: float, code: int) -> None:
    assert reference.encode_e2m1(np.array([value], np.float32)) == code


def test_every_code_is_its_own_nearest() -> None:
    codes = reference.encode_e2m1(E2M1)
    assert codes.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15]
    assert bits(E2M1)[[0, 8]].tolist() == [0, 0]


def test_e4m3_bytes_by_their_definition() -> None:
    for byte in range(256):
        exponent, mantissa = byte >> 3 & 15, byte & 7
        value = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
        if byte & 0x7F == 0x7F:
            assert np.isnan(E4M3[byte])
        else:
            assert E4M3[byte] == (-value if byte & 0x80 else value)


@pytest.mark.parametrize("power", [-60, -12, 0, 7, 60])
@pytest.mark.parametrize("dtype", [codec.BF16, np.float32], ids=["bf16", "f32"])
def test_every_midpoint_under_every_scale_byte(power: int, dtype: np.dtype) -> None:
    scales = E4M3[1:0x7F, None]
    step = scales * np.float32(2.0**power)
    middle = np.array(list(MIDPOINTS), np.float32)
    block = np.hstack([6 * step, step * middle, -step * middle, 0 * step])  # the 6 fixes the scale; all are BF16 values
    encoded, measure = codec.encode(block.astype(dtype), np.float32(2.0**power))
    codes = [7, *(at for _, at, _ in MIDPOINTS.values()), *(at | 8 for _, at, _ in MIDPOINTS.values()), 0]
    assert (encoded.scales == np.arange(1, 0x7F, dtype=np.uint8)[:, None]).all()
    assert (encoded.codes & 15 == np.array(codes[0::2])).all()
    assert (encoded.codes >> 4 == np.array(codes[1::2])).all()
    assert measure.clamped_blocks == measure.zero_blocks == 0


@pytest.mark.parametrize("scale_2", SCALE_2)
def test_every_code_under_every_scale_byte_decodes_as_the_reference(scale_2: np.float32) -> None:
    scales = np.setdiff1d(np.arange(256), [0x7F, 0xFF]).astype(np.uint8)[:, None]
    low, high = np.arange(0, 16, 2, dtype=np.uint8), np.arange(1, 16, 2, dtype=np.uint8)
    codes = np.tile(low | high << 4, (len(scales), 1))
    values = codec.decode(Encoded(codes, scales, scale_2))
    np.testing.assert_array_equal(bits(values), bits(reference.decode(Encoded(codes, scales, scale_2))))
    np.testing.assert_array_equal(values, E2M1 * (E4M3[scales] * scale_2))


@pytest.mark.parametrize("byte", [0x7F, 0xFF])
def test_nan_block_scale_is_refused(byte: int) -> None:
    encoded = Encoded(np.zeros((2, 16), np.uint8), np.array([[1, 1], [1, byte]], np.uint8), np.float32(1))
    with pytest.raises(NonFiniteError, match="block scale is NaN"):
        codec.decode(encoded)


def test_packed_bytes_are_those_of_an_encoded_matrix() -> None:
    encoded, _ = codec.encode(np.ones((3, 48), np.float32))
    assert packed_bytes((3, 48)) == (encoded.codes.nbytes, encoded.scales.nbytes) == (72, 9)
