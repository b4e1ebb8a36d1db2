"""The integer tables hold what the reference computes: every finite BF16 magnitude under every scale byte."""

import numpy as np
import pytest

from halfbyte.formats.nvfp4 import kernels, reference
from halfbyte.formats.nvfp4.format import E4M3, SCALE_FIRST, SCALE_LAST

SCALE_2 = {
    "usual": 1.2345e-4,
    "power of two": 2.0**-13,
    "largest by integers": 255.9,
    "smallest": 2.0**-149,
    "subnormal": 3e-41,
    "smallest normal": 2.0**-126,
    "of the largest BF16": 3.3895313892515355e38 / 2688,
    "products overflow": 3e38,
}
MAGNITUDES = np.arange(kernels.MAGNITUDES, dtype=np.uint32)
VALUES = (MAGNITUDES << 16).view(np.float32)


@pytest.mark.parametrize("scale_2", [np.float32(s) for s in SCALE_2.values()], ids=SCALE_2)
def test_tables_equal_the_reference(scale_2: np.float32) -> None:
    tables = kernels.build_tables(scale_2)
    bytes_ = np.arange(SCALE_FIRST, SCALE_LAST + 1, dtype=np.uint8)
    blocks = np.zeros((len(VALUES), 16), np.float32)
    blocks[:, 5] = VALUES
    with np.errstate(all="ignore"):
        scales = reference.block_scales(blocks, scale_2)
        wanted = reference.codes_for(np.broadcast_to(VALUES, (len(bytes_), len(VALUES))), bytes_, scale_2)
        ratio = VALUES / (np.float32(6) * scale_2)
        half_steps = E4M3[bytes_] * scale_2 * np.float32(0.5)
    codes = sum((MAGNITUDES.astype(np.int32) >= t[:, None]).astype(np.uint8) for t in tables.thresholds[bytes_, :7].T)
    np.testing.assert_array_equal(codes, wanted)
    np.testing.assert_array_equal(tables.scale_of[: len(VALUES)], scales)
    np.testing.assert_array_equal(tables.half_steps[bytes_], half_steps)
    is_clamped = (VALUES > 0) & (ratio < 2.0**-9)
    np.testing.assert_array_equal((MAGNITUDES > 0) & (tables.clamp_below > MAGNITUDES), is_clamped)
