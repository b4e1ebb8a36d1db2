"""The torch type of each element type that weights and scales are stored in. Needs torch, unlike its neighbours."""

import torch

from halfbyte.formats import dtypes

TORCH_DTYPES = {
    dtypes.BF16: torch.bfloat16,
    dtypes.F16: torch.float16,
    dtypes.F32: torch.float32,
    dtypes.F8_E4M3: torch.float8_e4m3fn,
    dtypes.F8_E8M0: torch.float8_e8m0fnu,
    dtypes.U8: torch.uint8,
    dtypes.I32: torch.int32,
    dtypes.I64: torch.int64,
}
