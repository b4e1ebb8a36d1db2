"""The scale sweep: never worse than the max rule, and as good as trying all 126 scale bytes."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from halfbyte.errors import NonFiniteError, UnsupportedError
from halfbyte.formats.nvfp4 import codec, reference
from halfbyte.formats.nvfp4.format import SCALE_FIRST, SCALE_LAST

from .test_codec import matrices, scale_2s

BLOCKS = 16_000
NOISE = 1 + 1e-6
"""What float32 sums of the same sixteen squares may differ by."""


def _sample(kind: str) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(5)
    draw: dict[str, Any] = {
        "normal": rng.standard_normal,
        "student-2": lambda n: rng.standard_t(2, n),
        "cauchy": rng.standard_cauchy,
    }
    return np.asarray((0.02 * draw[kind]((BLOCKS, 16))).astype(codec.BF16).astype(np.float32))


def _every(blocks: npt.NDArray[np.float32], scale_2: np.float32, importance: Any = None) -> npt.NDArray[np.float32]:
    """Errors [126, blocks] under every legal scale byte."""
    candidates = range(SCALE_FIRST, SCALE_LAST + 1)
    return np.stack(
        [
            reference.sweep_errors(blocks, np.full(len(blocks), byte, np.uint8), scale_2, importance)
            for byte in candidates
        ]
    )


@pytest.mark.parametrize("kind", ["normal", "student-2", "cauchy"])
def test_sweep_against_all_126_scales(kind: str) -> None:
    """The sixteen bytes tried hold the best of all 126 in every block, under ModelOpt's scale_2 and under our own."""
    blocks = _sample(kind)
    for scale_2 in (reference.scale_2_of(np.abs(blocks).max()), None):
        encoded, measure = codec.encode(blocks.astype(codec.BF16), scale_2, rounding="sweep")
        scales = encoded.scales[:, 0]
        swept = reference.sweep_errors(blocks, scales, encoded.scale_2)
        np.testing.assert_array_equal(swept, _every(blocks, encoded.scale_2).min(0))
        exact = reference.squared_errors(blocks, scales, encoded.scale_2)
        np.testing.assert_allclose(swept * np.square(encoded.scale_2, dtype=np.float64), exact, rtol=1e-4)
        by_max = reference.squared_errors(blocks, reference.block_scales(blocks, encoded.scale_2), encoded.scale_2)
        assert (exact <= by_max * NOISE).all()
        assert measure.squared_error == pytest.approx(exact.sum(dtype=np.float64), rel=1e-5)
        assert measure.max_error == pytest.approx(by_max.sum(dtype=np.float64), rel=1e-5)


def test_gain_on_gaussian_weights() -> None:
    """Known: 20.4 dB by the max rule; an exhaustive sweep measured 21.8 dB."""
    weight = np.random.default_rng(0).normal(0, 0.02, (1024, 1024)).astype(codec.BF16)
    _, by_max = codec.encode(weight, workers=2)
    _, swept = codec.encode(weight, rounding="sweep", workers=2)
    assert by_max.sqnr_db == pytest.approx(20.44, abs=0.03)
    assert swept.sqnr_db == pytest.approx(21.8, abs=0.03)
    assert swept.max_relative_error == pytest.approx(by_max.relative_error, rel=1e-6)
    assert by_max.max_error == by_max.squared_error


@settings(max_examples=300, deadline=None)
@given(
    weight=matrices(), scale_2=scale_2s, seed=st.integers(0, 2**32), spread=st.sampled_from([0, 1, 30]), data=st.data()
)
def test_weighted_sweep_equals_reference(
    weight: Any, scale_2: np.float32 | None, seed: int, spread: float, data: st.DataObject
) -> None:
    """spread: of the importance, in powers of two; some columns count for nothing."""
    rng = np.random.default_rng(seed)
    importance = np.exp2(spread * rng.standard_normal(weight.shape[1])).astype(np.float32)
    importance[rng.random(weight.shape[1]) < data.draw(st.sampled_from([0, 0.3, 1]))] = rng.choice([-0.0, 0.0])
    with np.errstate(all="ignore"):
        wanted = reference.encode(weight, scale_2, "sweep", importance)
    encoded, _ = codec.encode(weight, scale_2, "sweep", data.draw(st.integers(1, 3)), importance)
    np.testing.assert_array_equal(encoded.scales, wanted.scales)
    np.testing.assert_array_equal(encoded.codes, wanted.codes)


@pytest.mark.parametrize("dtype", [codec.BF16, np.float32], ids=["bf16", "f32"])
def test_a_tile_of_blocks_begins_anywhere_in_a_row(dtype: Any) -> None:
    """Rows of 7 blocks, tiles of 32: the importance must follow the columns, also in row ranges of one tensor."""
    rng = np.random.default_rng(7)
    weight, importance = rng.normal(0, 0.02, (61, 112)).astype(dtype), rng.exponential(size=112).astype(np.float32)
    wanted = reference.encode(weight, rounding="sweep", importance=importance)
    encoder = codec.Encoder(wanted.scale_2, "sweep", importance)
    codes, scales = np.empty((61, 56), np.uint8), np.empty((61, 7), np.uint8)
    for part in (slice(0, 13), slice(13, 61)):
        encoder.encode_into(weight[part], codes[part], scales[part])
    np.testing.assert_array_equal(scales, wanted.scales)
    np.testing.assert_array_equal(codes, wanted.codes)


def test_importance_changes_what_is_made_least() -> None:
    blocks = _sample("normal")
    importance = np.random.default_rng(8).lognormal(0, 1, 16).astype(np.float32)
    relative = reference.relative_importance(importance, 16)
    plain, _ = codec.encode(blocks, rounding="sweep")
    weighted, measure = codec.encode(blocks, rounding="sweep", importance=importance)

    def errors(encoded: reference.Encoded) -> npt.NDArray[np.float32]:
        return reference.sweep_errors(blocks, encoded.scales[:, 0], encoded.scale_2, relative)

    assert (errors(weighted) <= errors(plain)).all()
    assert errors(weighted).sum() < 0.97 * errors(plain).sum()
    by_hand = np.square(blocks - reference.decode(weighted), dtype=np.float64).sum()
    assert measure.squared_error == pytest.approx(by_hand, rel=1e-5)  # the measure itself stays unweighted
    for factor in (2.0**-100, 2.0**100):
        scaled, _ = codec.encode(blocks, rounding="sweep", importance=importance * np.float32(factor))
        np.testing.assert_array_equal(scaled.scales, weighted.scales)
    same, _ = codec.encode(blocks, rounding="sweep", importance=np.full(16, 3, np.float32))
    np.testing.assert_array_equal(same.scales, plain.scales)


def test_the_block_with_the_largest_weight_finds_the_scales_above_the_max_rule() -> None:
    """8 and 6: a scale that maps 8 to 6 has no value near 6, one that maps 8 to 4 has both."""
    weight = np.full((1, 32), 6.0, np.float32)
    weight[0, 0], weight[0, 16] = 8.0, 4.0
    weight[0, 17:] = 2.5
    at_max, _ = codec.encode(weight, reference.scale_2_of(8), "sweep")
    with_room, swept = codec.encode(weight, rounding="sweep")
    assert with_room.scale_2 == 2 * at_max.scale_2 == np.float32(8) / np.float32(1344)
    own, second = (reference.decode(e)[0].reshape(2, 16) for e in (at_max, with_room))
    np.testing.assert_array_equal(own[1], second[1])
    assert np.square(weight[0, :16] - second[0]).sum() < np.square(weight[0, :16] - own[0]).sum()
    assert swept.squared_error < swept.max_error


def test_headroom_never_costs() -> None:
    """Blocks within 2**12 of the largest keep every scale they could choose, so none gets worse."""
    blocks = _sample("normal")
    amax = np.abs(blocks).max()
    one, _ = codec.encode(blocks, reference.scale_2_of(amax), "sweep")
    two, _ = codec.encode(blocks, reference.scale_2_of(amax, "sweep"), "sweep")
    errors = [reference.squared_errors(blocks, e.scales[:, 0], e.scale_2) for e in (one, two)]
    assert (errors[1] <= errors[0] * NOISE).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_an_importance_that_cannot_be(value: float) -> None:
    weight, importance = np.ones((2, 32), np.float32), np.ones(32, np.float32)
    importance[5] = value
    for encode in (reference.encode, codec.encode):
        with pytest.raises((NonFiniteError, UnsupportedError), match=f"importance: {value} at column 5"):
            encode(weight, rounding="sweep", importance=importance)
        with pytest.raises(UnsupportedError, match=r"importance.*16.*32"):
            encode(weight, rounding="sweep", importance=np.ones(16, np.float32))
