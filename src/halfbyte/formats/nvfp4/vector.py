"""SIMD building blocks of the codec, written as LLVM vector code through numba's `intrinsic`.

LLVM turns the fixed vectors (16 lanes, one NVFP4 block) into whatever the processor has: AVX-512, AVX2, SSE2, NEON.
Loops in plain numba come out four to six times slower here, because numba widens 16-bit integers to 64 bits.

Addresses are plain integers (`array.ctypes.data`); nothing is bounds-checked, the callers in `codec` do that.
A BF16 magnitude is its 16 bits with the sign cleared, and orders like an integer.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
LANES = 16

# Each code step k needs |w| >= threshold[k]; the E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6, doubled, grow by these steps.
DOUBLED_STEPS = (1, 1, 1, 1, 2, 2, 4)


def splat(scalar_type: ir.Type, value: int, lanes: int = LANES) -> ir.Constant:
    return ir.Constant(ir.VectorType(scalar_type, lanes), [value] * lanes)


def load(builder: ir.IRBuilder, address: ir.Value, scalar_type: ir.Type, lanes: int = LANES) -> ir.Value:
    vector = ir.VectorType(scalar_type, lanes)
    return builder.load(builder.inttoptr(address, vector.as_pointer()), align=1)


def broadcast(builder: ir.IRBuilder, scalar: ir.Value, lanes: int = LANES) -> ir.Value:
    vector = ir.VectorType(scalar.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), splat(I32, 0, lanes))


def magnitude_of(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return builder.and_(bits, splat(I16, 0x7FFF, bits.type.count))


def as_float(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """BF16 bits to float32: they are the upper half."""
    wide = builder.shl(builder.zext(bits, ir.VectorType(I32, LANES)), splat(I32, 16))
    return builder.bitcast(wide, ir.VectorType(F32, LANES))


def tree_fold(builder: ir.IRBuilder, lanes: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """16 lanes into one, halves with halves: the order in which `reference.squared_errors` adds."""
    for half in (8, 4, 2, 1):
        low = ir.Constant(ir.VectorType(I32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(I32, half), list(range(half, 2 * half)))
        lanes = combine(builder.shuffle_vector(lanes, lanes, low), builder.shuffle_vector(lanes, lanes, high))
    return builder.extract_element(lanes, ir.Constant(I32, 0))


def reduced(builder: ir.IRBuilder, operation: str, lanes: ir.Value) -> ir.Value:
    """All lanes of an integer vector into one, by LLVM's vector reduction `operation`, such as umax."""
    name = f"llvm.vector.reduce.{operation}.v{lanes.type.count}i{lanes.type.element.width}"
    function = ir.FunctionType(lanes.type.element, [lanes.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [lanes])


def _steps_reached(builder: ir.IRBuilder, magnitude: ir.Value, thresholds: ir.Value) -> list[ir.Value]:
    """For each of the seven thresholds (int16 at address `thresholds`): 1 in the lanes that reach it, else 0."""
    reached = []
    for k in range(7):
        address = builder.add(thresholds, ir.Constant(I64, 2 * k))
        threshold = builder.load(builder.inttoptr(address, I16.as_pointer()), align=2)
        mask = builder.icmp_signed(">=", magnitude, broadcast(builder, threshold))
        reached.append(builder.zext(mask, ir.VectorType(I16, LANES)))
    return reached


def doubled_values(builder: ir.IRBuilder, reached: list[ir.Value]) -> ir.Value:
    """Twice the E2M1 magnitude (float32) of lanes that have reached the given code steps."""
    doubled = splat(I16, 0)
    for step, lanes in zip(DOUBLED_STEPS, reached, strict=True):
        scaled = builder.shl(lanes, splat(I16, step.bit_length() - 1)) if step > 1 else lanes
        doubled = builder.add(doubled, scaled)
    return builder.sitofp(builder.zext(doubled, ir.VectorType(I32, LANES)), ir.VectorType(F32, LANES))


def _lane_errors(builder: ir.IRBuilder, magnitude: ir.Value, reached: list[ir.Value], half_step: ir.Value) -> ir.Value:
    """Squared error of each lane (float32) when the steps `reached` are decoded; half_step = scale * scale_2 / 2."""
    decoded = builder.fmul(doubled_values(builder, reached), broadcast(builder, half_step))
    error = builder.fsub(as_float(builder, magnitude), decoded)
    return builder.fmul(error, error)


def store_codes(builder: ir.IRBuilder, negative: ir.Value, reached: list[ir.Value], destination: ir.Value) -> None:
    """Pack 16 codes into 8 bytes. negative: which lanes get the sign bit."""
    codes = splat(I16, 0)
    for lanes in reached:
        codes = builder.add(codes, lanes)
    sign = builder.shl(builder.zext(negative, ir.VectorType(I16, LANES)), splat(I16, 3))
    pairs = builder.bitcast(builder.or_(codes, sign), ir.VectorType(I32, 8))  # even code low, odd code high
    packed = builder.or_(pairs, builder.lshr(pairs, splat(I32, 12, 8)))
    target = ir.VectorType(I8, 8)
    builder.store(builder.trunc(packed, target), builder.inttoptr(destination, target.as_pointer()), align=1)


def _negative(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return builder.icmp_unsigned(">", bits, splat(I16, 0x8000))  # -0.0 is not negative


def accumulate(builder: ir.IRBuilder, lanes: ir.Value, address: ir.Value) -> None:
    pointer = builder.inttoptr(address, lanes.type.as_pointer())
    builder.store(builder.fadd(builder.load(pointer, align=4), lanes), pointer, align=4)


@intrinsic
def largest_magnitude(typingctx: Any, source: Any, count: Any) -> Any:
    """Largest BF16 magnitude (as int32 bits) among `count` values at address `source`; count a multiple of 16."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        address, count = args
        slots = [cgutils.alloca_once_value(builder, splat(I16, 0, n)) for n in (64, LANES)]
        whole = builder.and_(count, ir.Constant(I64, ~63))
        for start, stop, slot, lanes in ((ir.Constant(I64, 0), whole, slots[0], 64), (whole, count, slots[1], LANES)):
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(I64, lanes), I64) as (i, _):
                at = builder.add(address, builder.shl(i, ir.Constant(I64, 1)))
                magnitude = magnitude_of(builder, load(builder, at, I16, lanes))
                so_far = builder.load(slot)
                larger = builder.icmp_signed(">", magnitude, so_far)
                builder.store(builder.select(larger, magnitude, so_far), slot)
        parts = [reduced(builder, "umax", builder.load(slot)) for slot in slots]
        larger = builder.icmp_unsigned(">", parts[0], parts[1])
        return builder.zext(builder.select(larger, parts[0], parts[1]), I32)

    return types.int32(types.int64, types.int64), codegen


@intrinsic
def block_magnitude(typingctx: Any, source: Any) -> Any:
    """Largest magnitude (int64 holding BF16 bits) of the 16 values at address `source`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        return builder.zext(reduced(builder, "umax", magnitude_of(builder, load(builder, args[0], I16))), I64)

    return types.int64(types.int64), codegen


@intrinsic
def encode_block(typingctx: Any, source: Any, thresholds: Any, destination: Any, half_step: Any, sums: Any) -> Any:
    """Encode the 16 BF16 values at `source` into 8 bytes at `destination`, by seven int16 thresholds.

    half_step = scale * scale_2 / 2. Adds, lane by lane, squared error and square to the 32 float32 at address `sums`.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, thresholds, destination, half_step, sums = args
        bits = load(builder, source, I16)
        magnitude = magnitude_of(builder, bits)
        reached = _steps_reached(builder, magnitude, thresholds)
        store_codes(builder, _negative(builder, bits), reached, destination)
        accumulate(builder, _lane_errors(builder, magnitude, reached, half_step), sums)
        value = as_float(builder, magnitude)
        accumulate(builder, builder.fmul(value, value), builder.add(sums, ir.Constant(I64, 4 * LANES)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32, types.int64), codegen


@intrinsic
def block_error(typingctx: Any, source: Any, thresholds: Any, half_step: Any) -> Any:
    """Squared error (float32) of the block at `source` if encoded by `thresholds`; half_step = scale * scale_2 / 2."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, thresholds, half_step = args
        magnitude = magnitude_of(builder, load(builder, source, I16))
        reached = _steps_reached(builder, magnitude, thresholds)
        return tree_fold(builder, _lane_errors(builder, magnitude, reached, half_step), builder.fadd)

    return types.float32(types.int64, types.int64, types.float32), codegen


def _spread(builder: ir.IRBuilder, packed: ir.Value) -> ir.Value:
    """The 16 codes (int8, 16 lanes) of 8 bytes, low nibble first."""
    twice = ir.Constant(ir.VectorType(I32, LANES), [i // 2 for i in range(LANES)])
    codes = builder.shuffle_vector(packed, packed, twice)
    return builder.and_(builder.lshr(codes, ir.Constant(codes.type, [0, 4] * 8)), splat(I8, 15))


def _doubled_magnitudes(builder: ir.IRBuilder, codes: ir.Value) -> ir.Value:
    """Twice what codes are without their sign: code c below 4 is c; else 4 or 6, twice that for 6 and 7."""
    upper = builder.or_(splat(I8, 4), builder.shl(builder.and_(codes, splat(I8, 1)), splat(I8, 1)))
    upper = builder.shl(upper, builder.and_(builder.lshr(codes, splat(I8, 1)), splat(I8, 1)))
    is_upper = builder.icmp_unsigned("!=", builder.and_(codes, splat(I8, 4)), splat(I8, 0))
    return builder.select(is_upper, upper, builder.and_(codes, splat(I8, 3)))


def doubled_codes(builder: ir.IRBuilder, packed: ir.Value) -> ir.Value:
    """Twice the E2M1 values (int8, 16 lanes) of 8 bytes. As an integer code 8 gives 0, and so +0.0."""
    codes = _spread(builder, packed)
    doubled = _doubled_magnitudes(builder, codes)
    is_negative = builder.icmp_unsigned("!=", builder.and_(codes, splat(I8, 8)), splat(I8, 0))
    return builder.select(is_negative, builder.neg(doubled), doubled)


@intrinsic
def decode_signed_block(typingctx: Any, source: Any, step: Any, destination: Any) -> Any:
    """As `decode_block`, code 8 being -0.0: what others wrote is read to the bit."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, step, destination = args
        codes = _spread(builder, load(builder, source, I8, 8))
        floats, words = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
        magnitude = builder.sitofp(_doubled_magnitudes(builder, codes), floats)
        value = builder.fmul(magnitude, ir.Constant(floats, [0.5] * LANES))
        sign = builder.shl(builder.zext(builder.and_(codes, splat(I8, 8)), words), splat(I32, 28))
        value = builder.bitcast(builder.or_(builder.bitcast(value, words), sign), floats)
        result = builder.fmul(value, broadcast(builder, step))
        builder.store(result, builder.inttoptr(destination, floats.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), codegen


@intrinsic
def decode_block(typingctx: Any, source: Any, step: Any, destination: Any) -> Any:
    """Decode 8 bytes at `source` into 16 float32 at `destination`: E2M1[code] * step, step = scale * scale_2."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        source, step, destination = args
        doubled = doubled_codes(builder, load(builder, source, I8, 8))
        floats = ir.VectorType(F32, LANES)
        value = builder.fmul(builder.sitofp(doubled, floats), ir.Constant(floats, [0.5] * LANES))
        result = builder.fmul(value, broadcast(builder, step))
        builder.store(result, builder.inttoptr(destination, floats.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), codegen
