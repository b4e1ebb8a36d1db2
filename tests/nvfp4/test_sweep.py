"""The scale sweep: never worse than the max rule, and as good as trying all 126 scale bytes."""

import numpy as np
import numpy.typing as npt
import pytest

from halfbyte.nvfp4 import codec, reference
from halfbyte.nvfp4.format import SCALE_FIRST, SCALE_LAST

BLOCKS = 16_000


def _sample(kind: str) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(5)
    draw = {"normal": rng.standard_normal, "student-2": lambda n: rng.standard_t(2, n), "cauchy": rng.standard_cauchy}
    return (0.02 * draw[kind]((BLOCKS, 16))).astype(codec.BF16).astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "student-2", "cauchy"])
def test_sweep_against_all_126_scales(kind: str) -> None:
    blocks = _sample(kind)
    encoded, measure = codec.encode(blocks.astype(codec.BF16), rounding="sweep")
    scale_2, scales = encoded.scale_2, encoded.scales[:, 0]
    by_max = reference.squared_errors(blocks, reference.block_scales(blocks, scale_2), scale_2)
    swept = reference.squared_errors(blocks, scales, scale_2)
    every = np.stack(
        [
            reference.squared_errors(blocks, np.full(BLOCKS, byte, np.uint8), scale_2)
            for byte in range(SCALE_FIRST, SCALE_LAST + 1)
        ]
    )
    assert (swept <= by_max).all()
    assert swept.sum(dtype=np.float64) <= every.min(0).sum(dtype=np.float64) * 1.0001
    # Measured misses in 100,000 blocks: none in normal and Student t; 0.3 % in Cauchy, where the scale is subnormal.
    assert (swept > every.min(0)).mean() < (0.01 if kind == "cauchy" else 1e-4)
    assert measure.squared_error == pytest.approx(swept.sum(dtype=np.float64), rel=1e-5)
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
