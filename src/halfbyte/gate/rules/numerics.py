"""Numerics: what only reading scales (and codes) can tell. One bad scale is a bad answer for some prompts only."""

import math
from collections.abc import Iterator
from statistics import median

from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, plural
from halfbyte.gate.measures import TensorStatistics
from halfbyte.gate.registry import rule
from halfbyte.models.roles import SHARED_SCALE, Role
from halfbyte.recipes.policy import Bounds, Severity

SMALLEST_NORMAL, LARGEST = 2.0**-126, 2.0**127
MOST_FINDINGS = 20
MAGNITUDES = 8
AMAX_OF_SCALE = 6 * 448
"""The largest activation that an `input_scale` of 1 can hold: the largest code times the largest block scale."""


def statistics(facts: Facts) -> list[TensorStatistics]:
    """Of every packed linear. numba is imported when the first rule asks: a gate on headers never does."""
    from halfbyte.gate.statistics import statistics as measured

    return measured(facts)


@rule(
    "numerics.scale-finite", "deny", "A NaN block scale makes sixteen weights, and the layer's output, NaN.", "scales"
)
def scale_finite(facts: Facts) -> Iterator[Found]:
    bad = [found for found in statistics(facts) if found.nan]
    for found in bad[:MOST_FINDINGS]:
        message = f"{found.module}: {plural(found.nan, 'block scale')} of {found.blocks:,} NaN"
        yield Found(message, tensor=found.entry.tensors["weight_scale"].name)


@rule("numerics.scale-sign", "deny", "Block scales are magnitudes; kernels read the sign bit as part of one.", "scales")
def scale_sign(facts: Facts) -> Iterator[Found]:
    bad = [found for found in statistics(facts) if found.negative]
    for found in bad[:MOST_FINDINGS]:
        message = f"{found.module}: {plural(found.negative, 'block scale')} of {found.blocks:,} negative"
        yield Found(message, tensor=found.entry.tensors["weight_scale"].name)


@rule(
    "numerics.scale-2",
    "deny",
    "`weight_scale_2` multiplies every weight of the matrix: it must be finite, above zero and of a weight's size. "
    "compressed-tensors stores the reciprocal, thousands instead of a ten-thousandth.",
    "scales",
)
def scale_2(facts: Facts) -> Iterator[Found]:
    low, high = _bounds(facts.policy.numerics.weight_scale_2)
    bad = [found for found in statistics(facts) if not low <= found.scale_2 <= high]
    for found in bad[:MOST_FINDINGS]:
        message = f"{found.module}: weight_scale_2 is {found.scale_2:g}, wanted {low:g} to {high:g}"
        yield Found(message, tensor=found.entry.tensors["weight_scale_2"].name)


@rule(
    "numerics.gate-up",
    "deny",
    "Engines fuse gate and up into one GEMM with one global scale: vLLM takes gate's for both, TensorRT-LLM stops.",
    "scales",
)
def gate_up(facts: Facts) -> Iterator[Found]:
    groups: dict[tuple[object, ...], list[TensorStatistics]] = {}
    fused = {name: names for names in SHARED_SCALE for name in names}
    for found in statistics(facts):
        role = found.entry.role
        if role.projection in fused:
            groups.setdefault((role.module.rpartition(".")[0], fused[role.projection]), []).append(found)
    count = 0
    for group in groups.values():
        for part in ("scale_2", "input_scale"):
            values = [getattr(found, part) for found in group]
            if len(set(values)) > 1 and not any(value != value for value in values):
                names = ", ".join(f"{found.entry.role.projection} {getattr(found, part)}" for found in group)
                stored = "weight_scale_2" if part == "scale_2" else part
                yield Found(f"{group[0].module}: {stored} differs: {names}", module=group[0].module)
                count += 1
        if count >= MOST_FINDINGS:
            return


@rule(
    "numerics.input-scale",
    "deny",
    "`input_scale` must be finite, above zero and of an activation's size: too small clips and ruins the model, and an "
    "engine that takes the layer's largest lets one senseless value decide for all experts.",
    "scales",
)
def input_scale(facts: Facts) -> Iterator[Found]:
    low, high = _bounds(facts.policy.numerics.input_scale)
    bad = [
        found for found in statistics(facts) if found.input_scale is not None and not low <= found.input_scale <= high
    ]
    for found in bad[:MOST_FINDINGS]:
        message = f"{found.module}: input_scale is {found.input_scale:g}, wanted {low:g} to {high:g}"
        yield Found(message, tensor=found.entry.tensors["input_scale"].name)
    told = {id(found) for found in bad}
    yield from _too_small(facts, [found for found in statistics(facts) if id(found) not in told])
    ratio = facts.policy.numerics.input_scale_ratio
    for found, times in _outliers(facts, ratio):
        size = f"{times:,.0f} times" if times > 1 else f"1/{1 / times:,.0f} of"
        message = f"{found.module}: input_scale {found.input_scale:g} is {size} the median of its layer's experts"
        yield Found(f"{message}, more than {ratio:g}", tensor=found.entry.tensors["input_scale"].name)


def _too_small(facts: Facts, measured: list[TensorStatistics]) -> Iterator[Found]:
    """Activation scales that clip whatever the layer is fed: amax = 6 x 448 x scale. The hardest first."""
    ruins, clips = facts.policy.numerics.input_scale_ruins, facts.policy.numerics.input_scale_clips
    small = [(found.input_scale, found) for found in measured if found.input_scale is not None]
    small = [(scale, found) for scale, found in small if 0 < scale <= max(ruins, clips)]
    for scale, found in sorted(small, key=lambda item: item[0])[:MOST_FINDINGS]:
        limit = ruins if scale <= ruins else clips
        message = f"{found.module}: input_scale {scale:g} clips activations at {AMAX_OF_SCALE * scale:.3g}"
        tensor = found.entry.tensors["input_scale"].name
        severity: Severity = "deny" if scale <= ruins else "warn"
        yield Found(f"{message}, wanted more than {limit:g}", tensor=tensor, at_most=severity)


@rule(
    "numerics.hot-expert",
    "warn",
    "Engines take the largest `input_scale` of a layer for all its experts: one hot expert costs the others their "
    "small activations.",
    "scales",
)
def hot_expert(facts: Facts) -> Iterator[Found]:
    for found, times in _outliers(facts, facts.policy.numerics.hot_expert_ratio):
        if times > 1:
            role = found.entry.role
            message = (
                f"layer {role.layer}: expert {role.expert} ({role.projection}) would set the layer's input_scale, "
                f"{times:,.1f} times the median"
            )
            yield Found(message, module=found.module)


def _bounds(bounds: Bounds) -> tuple[float, float]:
    """Never below the smallest normal float32, which GPUs flush, nor infinite."""
    low = bounds.min if bounds.min is not None else SMALLEST_NORMAL
    return low, bounds.max if bounds.max is not None else LARGEST


def _outliers(facts: Facts, ratio: float) -> "Iterator[tuple[TensorStatistics, float]]":
    """Experts whose input_scale is more than `ratio` times the median of their layer and projection, or less."""
    groups: dict[tuple[object, ...], list[TensorStatistics]] = {}
    for found in statistics(facts):
        role = found.entry.role
        usable = found.input_scale is not None and 0 < found.input_scale < math.inf
        if usable and role.role is Role.ROUTED_EXPERT:
            groups.setdefault((role.layer, role.projection), []).append(found)
    count = 0
    for group in groups.values():
        middle = median(found.input_scale or 0.0 for found in group)
        for found in group:
            times = (found.input_scale or 0.0) / middle
            if not 1 / ratio <= times <= ratio and count < MOST_FINDINGS:
                count += 1
                yield found, times


@rule(
    "numerics.saturation",
    "deny",
    "Block scales at the format's end (448) in numbers mean a `weight_scale_2` that is too small: weights are clipped.",
    "scales",
)
def saturation(facts: Facts) -> Iterator[Found]:
    yield from _rates(facts, "saturated", facts.policy.numerics.saturated_share, "at the largest scale (448)")


@rule(
    "numerics.underflow",
    "deny",
    "Block scales at the smallest value or at zero in numbers mean that whole blocks of weights vanished.",
    "scales",
)
def underflow(facts: Facts) -> Iterator[Found]:
    yield from _rates(facts, "underflown", facts.policy.numerics.underflow_share, "at the smallest scale or at zero")


def _rates(facts: Facts, kind: str, limit: float, what: str) -> Iterator[Found]:
    count = 0
    for found in statistics(facts):
        number = found.saturated if kind == "saturated" else found.smallest + found.zero
        if found.blocks and number / found.blocks > limit and count < MOST_FINDINGS:
            count += 1
            message = f"{found.module}: {number / found.blocks:.1%} of the blocks {what}, the policy allows {limit:.0%}"
            yield Found(message, tensor=found.entry.tensors["weight_scale"].name)


@rule(
    "numerics.unused-range",
    "warn",
    "The largest block scale far below 448 means a `weight_scale_2` that is too large: small blocks lose precision.",
    "scales",
)
def unused_range(facts: Facts) -> Iterator[Found]:
    from halfbyte.formats.nvfp4.format import E4M3, E4M3_MAX

    limit, count = facts.policy.numerics.unused_range, 0
    for found in statistics(facts):
        largest = float(E4M3[found.largest])
        constant = found.saturated + found.smallest == 0 and largest == 1.0  # the scale of an all-zero tensor
        if largest < limit * E4M3_MAX and not constant and count < MOST_FINDINGS:
            count += 1
            message = f"{found.module}: the largest block scale is {largest:g} of {E4M3_MAX:g}"
            yield Found(message, tensor=found.entry.tensors["weight_scale"].name)


@rule(
    "numerics.lost-blocks",
    "deny",
    "Codes that are not zero under a scale of zero decode to nothing: the values were there and are lost.",
    "full",
)
def lost_blocks(facts: Facts) -> Iterator[Found]:
    bad = [found for found in statistics(facts) if found.lost_blocks]
    for found in bad[:MOST_FINDINGS]:
        message = (
            f"{found.module}: {plural(found.lost_blocks, 'block')} of {found.blocks:,} with codes under a zero scale"
        )
        yield Found(message, tensor=found.entry.tensors["weight_scale"].name)


@rule(
    "numerics.dead-codes",
    "deny",
    "A matrix that uses few of the eight magnitudes was scaled wrong or written by another format's packer.",
    "full",
)
def dead_codes(facts: Facts) -> Iterator[Found]:
    limit, count = facts.policy.numerics.dead_code_share, 0
    for found in statistics(facts):
        magnitudes = found.codes[:MAGNITUDES] + found.codes[MAGNITUDES:]
        dead = int((magnitudes == 0).sum())
        if found.zero_blocks < found.blocks and dead / MAGNITUDES > limit and count < MOST_FINDINGS:
            count += 1
            message = f"{found.module}: {dead} of {MAGNITUDES} magnitudes are never used, the policy allows {limit:.0%}"
            yield Found(message, tensor=found.entry.tensors["weight"].name)


@rule(
    "numerics.dead-expert",
    "warn",
    "A matrix of zeros is an expert that died in training or got lost on the way.",
    "full",
)
def dead_expert(facts: Facts) -> Iterator[Found]:
    dead = [found for found in statistics(facts) if found.blocks and found.zero_blocks == found.blocks]
    for found in dead[:MOST_FINDINGS]:
        yield Found(f"{found.module}: every weight is zero", module=found.module)


@rule("numerics.kept-finite", "deny", "A NaN or Inf in an unquantized weight spreads to every token.", "full")
def kept_finite(facts: Facts) -> Iterator[Found]:
    from halfbyte.gate.statistics import non_finite

    count = 0
    for entry in facts.each_entry():
        if entry.format not in QUANTIZED and count < MOST_FINDINGS:
            tensor = next(iter(entry.tensors.values()))
            number = non_finite(facts, tensor)
            if number:
                count += 1
                yield Found(f"{tensor.name}: {plural(number, 'number')} NaN or Inf", tensor=tensor.name)


@rule(
    "numerics.source-error",
    "deny",
    "Against the source: a packed matrix within NVFP4's error, a kept tensor byte for byte.",
    "full",
)
def source_error(facts: Facts) -> Iterator[Found]:
    if facts.source is None:
        return
    from halfbyte.gate.statistics import differs

    limit, count = facts.policy.numerics.source_error, 0
    for found in statistics(facts):
        error = found.source_error
        if error is not None and not error <= limit and count < MOST_FINDINGS:
            count += 1
            message = f"{found.module}: relative error {error:.4f} to the source, the policy allows {limit:g}"
            yield Found(message, tensor=found.entry.tensors["weight"].name)
    for entry in facts.each_entry():
        tensor = next(iter(entry.tensors.values()))
        original = facts.source.tensors.get(tensor.name)
        if entry.format in QUANTIZED or original is None or count >= MOST_FINDINGS:
            continue
        if differs(facts, tensor, original):
            count += 1
            yield Found(f"{tensor.name}: kept, yet not the source's bytes", tensor=tensor.name)
