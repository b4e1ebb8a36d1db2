"""The blocks of `vector` for float32 weights, in floating point: true division by the step, then seven comparisons.

Errors and squares are summed in float64 lanes, so that no magnitude of weights over- or underflows them.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from halfbyte.formats.nvfp4.vector import (
    F32,
    I16,
    I64,
    LANES,
    accumulate,
    broadcast,
    doubled_values,
    load,
    store_codes,
    tree_fold,
)

F64 = ir.DoubleType()
FLOATS, DOUBLES = ir.VectorType(F32, LANES), ir.VectorType(F64, LANES)

# |x| at or above (">=") or strictly above (">") which each code begins: exact midpoints go to the even code
STEPS = ((0.25, ">"), (0.75, ">="), (1.25, ">"), (1.75, ">="), (2.5, ">"), (3.5, ">="), (5.0, ">"))


def _float_splat(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [value] * LANES)


def magnitudes(builder: ir.IRBuilder, source: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Values at `source` and their magnitudes."""
    values = load(builder, source, F32)
    wide = ir.VectorType(ir.IntType(32), LANES)
    cleared = builder.and_(builder.bitcast(values, wide), ir.Constant(wide, [0x7FFFFFFF] * LANES))
    return values, builder.bitcast(cleared, FLOATS)


def _reached(builder: ir.IRBuilder, magnitude: ir.Value, step: ir.Value) -> tuple[ir.Value, list[ir.Value]]:
    """The quotient magnitude / step, and for each code step 1 (int16) in the lanes that reach it."""
    x = builder.fdiv(magnitude, broadcast(builder, step))
    masks = [builder.fcmp_ordered(comparison, x, _float_splat(at)) for at, comparison in STEPS]
    return x, [builder.zext(mask, ir.VectorType(I16, LANES)) for mask in masks]


def _decoded(builder: ir.IRBuilder, reached: list[ir.Value], step: ir.Value) -> ir.Value:
    """float32 magnitudes that the codes decode to: E2M1 * step."""
    value = builder.fmul(doubled_values(builder, reached), _float_splat(0.5))
    return builder.fmul(value, broadcast(builder, step))


@intrinsic
def float_block_magnitude(typingctx: Any, source: Any) -> Any:
    """Largest magnitude (float32) of the 16 finite float32 at address `source`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        return tree_fold(builder, magnitudes(builder, args[0])[1], larger)

    return types.float32(types.int64), codegen


@intrinsic
def encode_float_block(typingctx: Any, source: Any, step: Any, destination: Any, sums: Any) -> Any:
    """Encode 16 float32 at `source` into 8 bytes at `destination`; step = scale * scale_2.

    Adds, lane by lane, squared error and square to the 32 float64 at address `sums`.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, step, destination, sums = args
        values, magnitude = magnitudes(builder, source)
        x, reached = _reached(builder, magnitude, step)
        # the sign is the quotient's: one that underflows to -0.0 is not negative
        below = builder.fcmp_ordered("<", values, _float_splat(0.0))
        negative = builder.and_(below, builder.fcmp_ordered(">", x, _float_splat(0.0)))
        store_codes(builder, negative, reached, destination)
        exact = builder.fpext(magnitude, DOUBLES)
        error = builder.fsub(exact, builder.fpext(_decoded(builder, reached, step), DOUBLES))
        accumulate(builder, builder.fmul(error, error), sums)
        accumulate(builder, builder.fmul(exact, exact), builder.add(sums, ir.Constant(I64, 8 * LANES)))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64, types.int64), codegen


@intrinsic
def float_block_error(typingctx: Any, source: Any, step: Any) -> Any:
    """Squared error (float32) of the block at `source` under `step`, as `reference.squared_errors` sums it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, step = args
        magnitude = magnitudes(builder, source)[1]
        _, reached = _reached(builder, magnitude, step)
        error = builder.fsub(magnitude, _decoded(builder, reached, step))
        return tree_fold(builder, builder.fmul(error, error), builder.fadd)

    return types.float32(types.int64, types.float32), codegen
