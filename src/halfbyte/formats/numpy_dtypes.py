"""The numpy type of each element type that weights and scales are stored in."""

import ml_dtypes
import numpy as np

from halfbyte.formats import dtypes

NUMPY_DTYPES = {
    dtypes.BF16: np.dtype(ml_dtypes.bfloat16),
    dtypes.F16: np.dtype(np.float16),
    dtypes.F32: np.dtype(np.float32),
    dtypes.F64: np.dtype(np.float64),
    dtypes.F8_E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    dtypes.U8: np.dtype(np.uint8),
    dtypes.I8: np.dtype(np.int8),
    dtypes.F8_E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    dtypes.I32: np.dtype(np.int32),
    dtypes.I64: np.dtype(np.int64),
}
