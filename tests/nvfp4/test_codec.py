"""The fast codec equals the reference bit for bit, whatever the matrix; and its errors and measurements."""

from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from halfbyte.errors import NonFiniteError, UnsupportedError
from halfbyte.formats.nvfp4 import codec, reference
from halfbyte.formats.nvfp4.format import E4M3_MIN

from .golden import DTYPES, bits

Weight = npt.NDArray[Any]


@st.composite
def matrices(draw: st.DrawFn) -> Weight:
    """Any finite bit patterns, or (seeded) values of any exponents between two bounds, in any of the three dtypes."""
    dtype = np.dtype(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])
    shape = draw(st.integers(1, 7)), 16 * draw(st.integers(1, 6))
    if draw(st.booleans()):
        unsigned = np.dtype(f"u{dtype.itemsize}")
        drawn = draw(hnp.arrays(unsigned, shape)).view(dtype)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(np.isfinite(drawn), drawn, np.zeros_like(drawn)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    limits = (-25, 15) if dtype == np.float16 else (-150, 127)
    low, high = sorted(rng.uniform(*limits, 2))
    weight: Weight = (rng.choice([-1, 1], shape) * np.exp2(rng.uniform(low, high, shape))).astype(dtype)
    weight[rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    return weight


def _power(seed: int) -> np.float32:
    return np.float32(2.0 ** np.random.default_rng(seed).uniform(-149, 127))  # hypothesis' own floats crowd at the ends


scale_2s = st.none() | st.integers(0, 2**32).map(_power)


@settings(max_examples=500, deadline=None)
@given(weight=matrices(), scale_2=scale_2s, rounding=st.sampled_from(["max", "sweep"]), workers=st.integers(1, 3))
def test_codec_equals_reference(weight: Weight, scale_2: np.float32 | None, rounding: Any, workers: int) -> None:
    with np.errstate(all="ignore"):
        wanted = reference.encode(weight, scale_2, rounding)
        decoded = reference.decode(wanted)
    encoded, _ = codec.encode(weight, scale_2, rounding, workers)
    assert bits(np.asarray(encoded.scale_2)) == bits(np.asarray(wanted.scale_2))
    np.testing.assert_array_equal(encoded.scales, wanted.scales)
    np.testing.assert_array_equal(encoded.codes, wanted.codes)
    np.testing.assert_array_equal(codec.decode(encoded, workers), decoded)
    finite = np.isfinite(decoded)  # 0 * Inf, where scale_2 is absurd, is a NaN of either sign
    np.testing.assert_array_equal(bits(codec.decode(encoded, workers))[finite], bits(decoded)[finite])


@settings(max_examples=500, deadline=None)
@given(weight=matrices(), factor=st.sampled_from([1, 1, 1.5, 1e6, 1e30]), workers=st.integers(1, 3))
def test_measure_equals_float64(weight: Weight, factor: float, workers: int) -> None:
    """factor: how much larger the twin's amax is, which shares its scale_2."""
    w = weight.astype(np.float64)
    scale_2 = reference.scale_2_of(min(factor * np.abs(w).max(), 3e38))
    encoded, measure = codec.encode(weight, scale_2, workers=workers)
    error = np.square(w - codec.decode(encoded).astype(np.float64)).sum()
    block_amax = np.abs(w).reshape(-1, 16).max(1)
    ratio = block_amax.astype(np.float32) / (np.float32(6) * scale_2)
    assert measure.energy == pytest.approx(np.square(w).sum(), rel=1e-5, abs=0)
    assert measure.squared_error == pytest.approx(error, rel=1e-4, abs=1e-12 * measure.energy)
    assert measure.max_error == measure.squared_error
    assert measure.zero_blocks == (block_amax == 0).sum()
    assert measure.clamped_blocks == ((block_amax > 0) & (ratio < E4M3_MIN)).sum()
    if measure.energy:
        assert measure.relative_error == pytest.approx(np.sqrt(error / np.square(w).sum()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [codec.BF16, np.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize("power", [-120, 0, 18, 19, 20, 45, 127])
def test_a_negative_quotient_that_underflows_has_no_sign(power: int, dtype: Any) -> None:
    """The sign is that of w / step in float32, and -2**-133 over a large step is -0.0, for ModelOpt too."""
    weight = np.full((3, 16), -(2.0**-133), np.float32)
    weight[:, 7] = 2.0**power, 2.0 ** (power - 2), -(2.0 ** (power - 4))
    wanted = reference.encode(weight.astype(dtype))
    np.testing.assert_array_equal(codec.encode(weight.astype(dtype))[0].codes, wanted.codes)
    assert wanted.codes[0, 0] == (0x00 if power >= 20 else 0x88)


@pytest.mark.parametrize("size", [1e-36, 1e-23, 1e-15, 1.0, 1e15, 1e25])
def test_measure_of_weights_whose_squares_leave_float32(size: float) -> None:
    """Under the scale_2 of an ordinary twin: all is lost below it, nothing but the clipped part is kept above it."""
    weight = np.full((2, 64), size).astype(codec.BF16)
    _, measure = codec.encode(weight, np.float32(1e-4))
    decoded = min(size, 0.2688) if size > 1e-4 else 0
    w = float(weight[0, 0])
    assert measure.energy == pytest.approx(128 * w * w, rel=1e-5, abs=0)
    assert measure.relative_error == pytest.approx(abs(w - decoded) / w, abs=0.07)


def test_measure_of_nothing() -> None:
    _, measure = codec.encode(np.zeros((2, 32), codec.BF16))
    assert (measure.squared_error, measure.energy, measure.zero_blocks) == (0, 0, 4)
    assert measure.relative_error == 0
    assert measure.sqnr_db is None


def test_measures_add_up() -> None:
    weight = np.random.default_rng(1).normal(size=(6, 64)).astype(codec.BF16)
    scale_2 = reference.scale_2_of(np.abs(weight.astype(np.float32)).max())
    total = codec.Measure()
    for part in (weight[:2], weight[2:]):
        total.add(codec.encode(part, scale_2)[1])
    assert total.squared_error == pytest.approx(codec.encode(weight)[1].squared_error)
    assert total.energy == pytest.approx(codec.encode(weight)[1].energy)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(0, 32), (1, 16), (1, 48), (5, 16), (67, 1040)])
def test_shapes(shape: tuple[int, int], dtype: Any) -> None:
    weight = np.random.default_rng(2).normal(0, 0.02, shape).astype(dtype)
    wanted, encoded = reference.encode(weight), codec.encode(weight, workers=3)[0]
    np.testing.assert_array_equal(encoded.codes, wanted.codes)
    np.testing.assert_array_equal(encoded.scales, wanted.scales)
    assert codec.decode(encoded).shape == shape


def test_a_matrix_that_is_not_contiguous() -> None:
    weight = np.random.default_rng(3).normal(size=(64, 40)).astype(codec.BF16).T[::2]
    np.testing.assert_array_equal(codec.encode(weight)[0].codes, reference.encode(weight).codes)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("scale_2", [None, np.float32(1)])
def test_not_finite_names_the_index(value: float, dtype: Any, scale_2: np.float32 | None) -> None:
    weight = np.ones((8, 32), dtype)
    weight[5, 17] = weight[7, 1] = value
    with pytest.raises(NonFiniteError):
        reference.encode(weight, scale_2)
    for workers in (1, 2, 3):
        with pytest.raises(NonFiniteError, match=r"(nan|inf) at index \[5, 17\]"):
            codec.encode(weight, scale_2, workers=workers)
    with pytest.raises(NonFiniteError, match=r"layer.weight: .* at index \[105, 17\]"):
        codec.amax(weight, "layer.weight", first_row=100)


@pytest.mark.parametrize("shape", [(4, 24), (4, 8), (32,), (2, 2, 16), ()])
def test_a_shape_that_cannot_be_nvfp4(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedError, match="multiple of 16") as caught:
        codec.encode(np.ones(shape, np.float32))
    assert str(list(shape)) in caught.value.message
    assert caught.value.hint


def test_reference_refuses_a_bad_row_length() -> None:
    with pytest.raises(UnsupportedError, match="24 is not a multiple of 16"):
        reference.encode(np.ones((4, 24), np.float32))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64, 80, 1000])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_amax_of_any_size(size: int, dtype: Any) -> None:
    weight = np.random.default_rng(size).normal(size=size).astype(dtype)
    assert codec.amax(weight) == np.abs(weight.astype(np.float32)).max(initial=0)


def test_outputs_are_wholly_written() -> None:
    """Poisoned buffers: nothing of them survives, nothing beyond is touched."""
    weight = np.random.default_rng(4).normal(size=(3, 48)).astype(codec.BF16)
    wanted = reference.encode(weight)
    for rounding in ("max", "sweep"):
        codes, scales = np.full((5, 24), 0xAA, np.uint8), np.full((5, 3), 0xFF, np.uint8)
        codec.Encoder(wanted.scale_2, rounding).encode_into(weight, codes[1:4], scales[1:4])
        np.testing.assert_array_equal(codes[1:4], reference.encode(weight, wanted.scale_2, rounding).codes)
        np.testing.assert_array_equal(scales[1:4], reference.encode(weight, wanted.scale_2, rounding).scales)
        assert (codes[[0, 4]] == 0xAA).all()
        assert (scales[[0, 4]] == 0xFF).all()
