"""One row of activations times packed matrices: the products of decode, without decoding to memory.

Each weight is read once, as half a byte, expanded in a register and added up in float32.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from halfbyte.formats.nvfp4.format import E4M3
from halfbyte.formats.nvfp4.kernels import jit
from halfbyte.formats.nvfp4.vector import F32, I8, I64, LANES, broadcast, doubled_codes, load, tree_fold

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
HALF_SCALES = (E4M3 * np.float32(0.5)).astype(np.float32)
"""E4M3 values halved, because codes are expanded to twice their value."""


@intrinsic
def dot_row(typingctx: Any, codes: Any, scales: Any, x: Any, blocks: Any, half_scales: Any) -> Any:
    """Sum of E2M1[code] * E4M3[scale] * x over `blocks` blocks (float32); all but `blocks` are addresses."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        codes, scales, x, blocks, half_scales = args
        floats = ir.VectorType(F32, LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * LANES))
        with cgutils.for_range(builder, blocks, intp=I64) as loop:
            i = loop.index
            doubled = doubled_codes(builder, load(builder, builder.add(codes, builder.shl(i, I64(3))), I8, 8))
            byte = builder.load(builder.inttoptr(builder.add(scales, i), I8.as_pointer()), align=1)
            at = builder.add(half_scales, builder.shl(builder.zext(byte, I64), I64(2)))
            scale = broadcast(builder, builder.load(builder.inttoptr(at, F32.as_pointer()), align=4))
            values = load(builder, builder.add(x, builder.shl(i, I64(6))), F32)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats, [floats] * 3), "llvm.fma.v16f32"
            )
            product = builder.fmul(builder.sitofp(doubled, floats), values)
            builder.store(builder.call(fma, [product, scale, builder.load(total)]), total)
        return tree_fold(builder, builder.load(total), builder.fadd)

    return types.float32(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


def matrix_times_row(codes: Bytes, scales: Bytes, scale_2: np.float32, x: Floats, out: Floats) -> None:
    """codes uint8 [N, K/2], scales uint8 [N, K/16], x [K], all contiguous -> out [N]: dequantized codes times x."""
    _matrix_times_row(codes, scales, scale_2, x, HALF_SCALES, out)


@jit
def _matrix_times_row(
    codes: Bytes, scales: Bytes, scale_2: np.float32, x: Floats, half_scales: Floats, out: Floats
) -> None:
    blocks, table, row_x = scales.shape[1], half_scales.ctypes.data, x.ctypes.data
    first, scale_first = codes.ctypes.data, scales.ctypes.data
    for row in range(scales.shape[0]):
        out[row] = dot_row(first + 8 * blocks * row, scale_first + blocks * row, row_x, blocks, table) * scale_2
