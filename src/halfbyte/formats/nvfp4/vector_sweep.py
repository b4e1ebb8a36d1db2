"""The sweep of `reference.sweep_scales` in vector code: the lanes are 16 neighbouring scale bytes of one block.

Each of the block's 16 elements is rounded under all 16 scales at once, so nothing is folded across lanes until the
end, and no code is produced: E2M1 rounding is one float addition of a constant whose last bit is worth E2M1's spacing
at that magnitude (the processor then rounds to even, as E2M1 does).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from halfbyte.formats.nvfp4.reference import SWEEP_RATIO_MAX
from halfbyte.formats.nvfp4.vector import (
    F32,
    I16,
    I32,
    I64,
    LANES,
    as_float,
    broadcast,
    load,
    magnitude_of,
    reduced,
    splat,
)
from halfbyte.formats.nvfp4.vector_float import magnitudes

FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)

EXPONENT = 0x7F800000
ONE = 0x3F800000
TO_SPACING = (22 << 23) | 0x400000
"""Added to the bits of 2**e: 1.5 * 2**(22 + e), whose last bit is worth 2**(e - 1), E2M1's spacing in [2**e, 2**(e+1)).
Below 1 the spacing stays that of [1, 2)."""


def _splat(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [value] * LANES)


def _smaller(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _store_ratios(builder: ir.IRBuilder, magnitude: ir.Value, scale_2: ir.Value, destination: ir.Value) -> None:
    ratios = _smaller(builder, builder.fdiv(magnitude, broadcast(builder, scale_2)), _splat(SWEEP_RATIO_MAX))
    builder.store(ratios, builder.inttoptr(destination, FLOATS.as_pointer()), align=4)


@intrinsic
def bf16_ratios(typingctx: Any, source: Any, scale_2: Any, destination: Any) -> Any:
    """Magnitudes of the 16 BF16 values at `source` over `scale_2`, at most 2**40, as 16 float32 at `destination`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        magnitude = as_float(builder, magnitude_of(builder, load(builder, args[0], I16)))
        _store_ratios(builder, magnitude, args[1], args[2])
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), codegen


@intrinsic
def float_ratios(typingctx: Any, source: Any, scale_2: Any, destination: Any) -> Any:
    """`bf16_ratios` of 16 float32 values."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        _store_ratios(builder, magnitudes(builder, args[0])[1], args[1], args[2])
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), codegen


def _squared_residue(builder: ir.IRBuilder, ratio: ir.Value, reciprocals: ir.Value) -> ir.Value:
    """(x - E2M1(x))**2 for x = ratio * reciprocals."""
    x = builder.fmul(broadcast(builder, ratio), reciprocals)
    clipped = _smaller(builder, x, _splat(6.0))
    power = builder.and_(builder.bitcast(clipped, INTS), splat(I32, EXPONENT))
    power = builder.select(builder.icmp_signed(">", power, splat(I32, ONE)), power, splat(I32, ONE))
    magic = builder.bitcast(builder.add(power, splat(I32, TO_SPACING)), FLOATS)
    residue = builder.fsub(x, builder.fsub(builder.fadd(clipped, magic), magic))
    return builder.fmul(residue, residue)


def _best(weighted: bool) -> Any:
    """Code generator of `best_scale` and `weighted_best_scale`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        ratios, table, first, start = args[0], *args[-3:]
        row = builder.add(table, builder.shl(first, ir.Constant(I64, 2)))
        reciprocals = load(builder, row, F32)
        squares = load(builder, builder.add(row, ir.Constant(I64, 4 * 128)), F32)

        def scalar(address: ir.Value, i: int) -> ir.Value:
            at = builder.add(address, ir.Constant(I64, 4 * i))
            return builder.load(builder.inttoptr(at, F32.as_pointer()), align=4)

        def total(i: int, stride: int) -> ir.Value:
            """Sum over elements i, i + stride ..., added as the reference's tree adds them."""
            if stride == LANES:
                lanes = _squared_residue(builder, scalar(ratios, i), reciprocals)
                return builder.fmul(lanes, broadcast(builder, scalar(args[1], i))) if weighted else lanes
            return builder.fadd(total(i, 2 * stride), total(i + stride, 2 * stride))

        errors = builder.fmul(total(0, 1), squares)
        order = builder.bitcast(errors, INTS)  # floats that are not negative order like their bits
        hits = builder.icmp_signed("==", order, broadcast(builder, reduced(builder, "umin", order)))
        hits = builder.zext(builder.bitcast(hits, I16), I64)
        of_start = builder.and_(builder.lshr(hits, builder.sub(start, first)), ir.Constant(I64, 1))
        lowest = builder.add(first, builder.cttz(hits, ir.Constant(ir.IntType(1), 0)))
        return builder.select(builder.trunc(of_start, ir.IntType(1)), start, lowest)

    return codegen


@intrinsic
def best_scale(typingctx: Any, ratios: Any, table: Any, first: Any, start: Any) -> Any:
    """Scale byte with the least squared error among first ... first + 15; ties go to `start`, then to the smallest.

    ratios: address of what `bf16_ratios` or `float_ratios` stored. table: address of float32 [2, 128] by scale byte,
    1 / E4M3 and E4M3**2. All arguments and the result are int64.
    """
    return types.int64(*[types.int64] * 4), _best(weighted=False)


@intrinsic
def weighted_best_scale(typingctx: Any, ratios: Any, importance: Any, table: Any, first: Any, start: Any) -> Any:
    """`best_scale` with the 16 float32 at address `importance` as weights of the squared errors."""
    return types.int64(*[types.int64] * 5), _best(weighted=True)
