"""Decode NVFP4 straight into the dtype of the GEMM.

float32 is the codec's own kernel, tensor scale included: what ModelOpt's dequantized weights are. bfloat16 is
E2M1 * E4M3 alone, cut to the upper half, which loses nothing: these values have at most 6 significant bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from halfbyte.formats.nvfp4 import kernels, vector
from halfbyte.formats.nvfp4.format import BLOCK_SIZE, E4M3
from halfbyte.formats.nvfp4.kernels import jit
from halfbyte.formats.nvfp4.vector import I16, I32, LANES, load, splat

Bytes = npt.NDArray[np.uint8]


def decode_into(codes: Bytes, scales: Bytes, scale_2: np.float32, scratch: torch.Tensor) -> None:
    """codes uint8 [n, K/2] and scales uint8 [n, K/16], contiguous -> flat `scratch`, float32 or bfloat16, n * K.

    scale_2 is a factor of float32 values only.
    """
    if scratch.dtype == torch.float32:
        kernels.decode(codes.reshape(-1), scales.reshape(-1), scale_2, scratch.numpy())
    else:
        decode_bf16(codes.reshape(-1), scales.reshape(-1), scratch.view(torch.uint16).numpy())


@intrinsic
def _upper_halves(typingctx: Any, source: Any, destination: Any) -> Any:
    """Store the upper 16 bits of 16 float32 at address `source` as bfloat16 at `destination`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, destination = args
        narrow = ir.VectorType(I16, LANES)
        upper = builder.lshr(load(builder, source, I32), splat(I32, 16))
        builder.store(builder.trunc(upper, narrow), builder.inttoptr(destination, narrow.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@jit
def decode_bf16(codes: Bytes, scales: Bytes, values: npt.NDArray[np.uint16]) -> None:
    """Decode flat `codes` (size / 2) and `scales` (size / 16) into flat bfloat16 bits."""
    block_values = np.empty(BLOCK_SIZE, np.float32)
    source, destination, between = codes.ctypes.data, values.ctypes.data, block_values.ctypes.data
    for block in range(scales.size):
        vector.decode_block(source + 8 * block, E4M3[scales[block]], between)
        _upper_halves(between, destination + 32 * block)
