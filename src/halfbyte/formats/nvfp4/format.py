"""The constants of NVFP4: the two small float formats and how a tensor is laid out.

    value = E2M1[code] * float(weight_scale[block]) * weight_scale_2

A block is 16 consecutive elements of one row. `weight_scale` is one E4M3FN byte per block, `weight_scale_2` one
float32 per tensor that *multiplies* (compressed-tensors stores the reciprocal).

Sources: OCP Microscaling Formats (MX) v1.0 for E2M1; the NVFP4 rules are ModelOpt 0.47's `NVFP4QTensor`.
"""

import ml_dtypes
import numpy as np

from halfbyte.formats.nvfp4.layout import BLOCK_SIZE as BLOCK_SIZE

E2M1_MAX = 6.0
E4M3_MAX = 448.0
E4M3_MIN = 2.0**-9
"""Smallest positive E4M3FN value, and the smallest block scale that ModelOpt writes."""

AMAX_TO_SCALE_2 = np.float32(E2M1_MAX * E4M3_MAX)
"""`weight_scale_2 = amax / 2688` and `input_scale = amax / 2688`: the largest value becomes 6 times 448."""

ZERO_TENSOR_SCALE_2 = np.float32(2.0**-12)
"""Stands in for a `weight_scale_2` of 0 (an all-zero tensor), where ModelOpt writes NaN block scales."""

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""float32 value of each of the 16 codes; bit 3 is the sign. Code 8 is +0.0, because ModelOpt decodes it so: a small
negative weight that rounds to zero loses its sign."""

SIGNED_E2M1 = np.concatenate([E2M1[:8], -E2M1[:8]])
"""The same with code 8 as -0.0, as OCP defines it and compressed-tensors and transformers decode it."""

E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
"""float32 value of each of the 256 E4M3FN bytes; 0x7F and 0xFF are NaN."""

SCALE_ONE = 0x38
"""The E4M3 byte of 1.0: what an all-zero block stores."""

SCALE_FIRST, SCALE_LAST = 0x01, 0x7E
"""The block scale bytes that are ever written: 2**-9 to 448."""
