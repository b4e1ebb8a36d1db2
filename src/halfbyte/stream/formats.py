"""Stored bytes -> weights in the compute dtype, for every format that a checkpoint may have.

BF16, F16 and F32 are cast. NVFP4 is E2M1 * (E4M3 * weight_scale_2), the inner product rounded first, as ModelOpt and
`runtime` decode it. Block FP8 is E4M3 * weight_scale_inv of its 128 x 128 tile (DeepSeek-V3, `weight_dequant`); plain
FP8 is E4M3 * weight_scale, one for the matrix or one for each row.
"""

import numpy as np
import torch
from torch import Tensor

from halfbyte.checkpoint.inventory import FP8, FP8_BLOCK, FP8_TILE, NVFP4, Entry
from halfbyte.errors import UnsupportedError
from halfbyte.formats.nvfp4 import kernels
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.runtime.runtime import check_positive, check_scales

Raw = dict[str, Tensor]
"""Part -> its bytes as they lie in the file: uint8, one dimension."""

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
}


def decoded(entry: Entry, raw: Raw, dtype: torch.dtype) -> Tensor:
    """The weight: `dtype`, entry.shape, on the device of `raw`. It never shares memory with `raw`.

    Raises UnsupportedError for a dtype that no weight has, CheckpointError for damaged scales.
    """
    parts = {part: _typed(entry, part, raw) for part in entry.tensors}
    if entry.format == NVFP4:
        return _nvfp4(entry, parts).to(dtype)
    if entry.format == FP8_BLOCK:
        return _fp8_block(parts["weight"], parts["weight_scale_inv"]).to(dtype)
    if entry.format == FP8:
        scale = parts["weight_scale"].float()
        return (parts["weight"].float() * (scale.view(-1, 1) if scale.ndim else scale)).to(dtype)
    plain = next(iter(parts.values()))
    if not plain.is_floating_point():
        raise UnsupportedError(f"{entry.name}: {entry.format} is no weight that can be computed with")
    return plain.to(dtype, copy=True)


def input_scale(entry: Entry, raw: Raw) -> Tensor | None:
    """float32 [] of an NVFP4 linear; None where it has none. Raises CheckpointError unless positive and finite."""
    if entry.format != NVFP4 or "input_scale" not in entry.tensors:
        return None
    scale = _typed(entry, "input_scale", raw).reshape(()).clone()
    check_positive(entry.tensors["input_scale"].name, scale)
    return scale


def _typed(entry: Entry, part: str, raw: Raw) -> Tensor:
    tensor = entry.tensors[part]
    if tensor.dtype not in DTYPES:
        raise UnsupportedError(
            f"{tensor.name}: dtype {tensor.dtype} cannot be computed with", hint=f"known: {', '.join(DTYPES)}"
        )
    return raw[part].view(DTYPES[tensor.dtype]).view(tensor.shape)


def _nvfp4(entry: Entry, parts: dict[str, Tensor]) -> Tensor:
    codes, scales, scale_2 = parts["weight"], parts["weight_scale"], parts["weight_scale_2"].reshape(())
    check_positive(entry.tensors["weight_scale_2"].name, scale_2)
    check_scales(entry.tensors["weight_scale"].name, scales)
    if codes.device.type != "cpu":
        return values.dequantized(codes, scales, scale_2.expand(codes.shape[0]))
    result = torch.empty(entry.shape)  # torch's own memory: its alignment decides how a GEMM rounds
    stored = codes.numpy().reshape(-1), scales.view(torch.uint8).numpy().reshape(-1)
    kernels.decode(*stored, np.float32(scale_2.item()), result.view(-1).numpy())
    return result


def _fp8_block(weight: Tensor, scale_inv: Tensor) -> Tensor:
    """float32 [N, K]: each 128 x 128 tile times its scale, edge tiles may be smaller."""
    rows, columns = weight.shape
    result = weight.float()
    scales = scale_inv.float().repeat_interleave(FP8_TILE, dim=1)[:, :columns]
    for tile, start in enumerate(range(0, rows, FP8_TILE)):
        result[start : start + FP8_TILE] *= scales[tile]
    return result
