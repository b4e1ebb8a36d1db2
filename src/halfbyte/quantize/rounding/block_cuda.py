"""`block.round_block` on CUDA, in Triton: one program a group of rows, the 16 scales side by side.

The 16 columns follow one another in registers; what they need of the factor is the same for all rows.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from halfbyte.formats.nvfp4.format import SCALE_FIRST, SCALE_LAST, SCALE_ONE
from halfbyte.quantize.rounding.scales_tried import RECIPROCALS, SCALES_BELOW, SCALES_TRIED, STEPS

ROWS = 32


def round_rows(
    wanted: Tensor,
    away: Tensor | None,
    inner: Tensor,
    cost: Tensor,
    weight: Tensor,
    codes: Tensor,
    scales: Tensor,
    error: Tensor,
    change: Tensor,
) -> None:
    """See `block.round_block`. codes, scales, error and change are written."""
    rows = len(wanted)
    strides = [x.stride(0) for x in (wanted, wanted if away is None else away, weight, codes, scales, error, change)]
    _round_rows[(triton.cdiv(rows, ROWS),)](
        wanted, wanted if away is None else away, inner, cost, weight, *_tables(wanted.device),
        codes, scales, error, change, rows, *strides, COMPARE=away is not None,
        ROWS=ROWS, LANES=SCALES_TRIED, BELOW=SCALES_BELOW, FIRST=SCALE_FIRST, LAST=SCALE_LAST, ONE=SCALE_ONE,
    )  # fmt: skip


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(STEPS).to(device), torch.from_numpy(RECIPROCALS).to(device)


@triton.jit  # type: ignore[untyped-decorator]
def _rint(x):
    """Nearest integer, ties to even, of 0 <= x < 2**22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit  # type: ignore[untyped-decorator]
def _start(amax, LAST: tl.constexpr, ONE: tl.constexpr):
    """The max rule's scale byte: E4M3(amax / 6), ties to even."""
    ratio = tl.minimum(tl.maximum(amax / 6.0, 0.001953125), 448.0)
    bits = ratio.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    small = _rint(ratio * 512.0).to(tl.int32)
    byte = tl.where(ratio >= 0.015625, normal, small)
    return tl.where(amax == 0, ONE, tl.minimum(byte, LAST))


_STRIDES = tuple(f"of_{name}" for name in ("wanted", "away", "weight", "codes", "scales", "errors", "change"))


# One compilation, whatever the shape and wherever a block begins: nothing is gained by knowing.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=("rows", *_STRIDES),
    do_not_specialize_on_alignment=("wanted", "away", "weight", "codes", "scales", "errors", "change"),
)
def _round_rows(
    wanted, away, inner, column_cost, weight, steps, reciprocals, codes, scales, errors, change, rows,
    of_wanted, of_away, of_weight, of_codes, of_scales, of_errors, of_change, COMPARE: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, BELOW: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """of_...: elements from one row to the next."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    lane = tl.arange(0, LANES)
    amax = tl.zeros([ROWS], tl.float32)
    for k in tl.static_range(16):
        amax = tl.maximum(amax, tl.abs(tl.load(wanted + row * of_wanted + k, mask=inside, other=0.0)))
    byte = _start(amax, LAST, ONE)[:, None] - BELOW + lane[None, :]
    byte = tl.minimum(tl.maximum(byte, FIRST), LAST)
    step = tl.load(steps + byte)
    reciprocal = tl.load(reciprocals + byte)
    cost = tl.zeros([ROWS, LANES], tl.float32)
    error = ()
    code = ()
    for k in tl.static_range(16):
        own = tl.load(wanted + row * of_wanted + k, mask=inside, other=0.0)[:, None]
        target = own + tl.zeros([ROWS, LANES], tl.float32)
        for j in tl.static_range(k):
            target += error[j] * tl.load(inner + j * 16 + k)
        x = target * reciprocal
        magnitude = tl.minimum(tl.abs(x), 6.0)
        spacing = tl.where(magnitude < 2.0, 0.5, tl.where(magnitude < 4.0, 1.0, 2.0))
        per = tl.where(magnitude < 2.0, 2.0, tl.where(magnitude < 4.0, 1.0, 0.5))
        nearest = _rint(magnitude * per) * spacing
        nearest = tl.where(x < 0, -nearest, nearest)
        value = nearest * step
        cost += tl.load(column_cost + k) * (target - value) * (target - value)
        error = error + (own - value,)  # noqa: RUF005 - Triton has no unpacking
        code = code + (nearest,)  # noqa: RUF005
    least = tl.min(cost, 1)
    order = tl.where(lane == BELOW, -1, lane)[None, :]
    best = tl.min(tl.where(cost == least[:, None], order, LANES), 1)
    best = tl.where(best == -1, BELOW, best)[:, None]
    better = inside
    if COMPARE:
        before = tl.zeros([ROWS], tl.float32)
        distances = ()
        for k in tl.static_range(16):
            own = tl.load(away + row * of_away + k, mask=inside, other=0.0)
            distance = own
            for j in tl.static_range(k):
                distance += distances[j] * tl.load(inner + j * 16 + k)
            before += tl.load(column_cost + k) * distance * distance
            distances = distances + (own,)  # noqa: RUF005
        better = inside & (least < before)
    taken = lane[None, :] == best
    tl.store(scales + row * of_scales, tl.sum(tl.where(taken, byte, 0), 1).to(tl.uint8), mask=better)
    scale = tl.sum(tl.where(taken, step, 0.0), 1)
    for k in tl.static_range(16):
        own = tl.sum(tl.where(taken, code[k], 0.0), 1)
        after = tl.load(weight + row * of_weight + k, mask=inside, other=0.0) - own * scale
        before = tl.load(errors + row * of_errors + k, mask=inside, other=0.0)
        tl.store(codes + row * of_codes + k, own, mask=better)
        tl.store(errors + row * of_errors + k, after, mask=better)
        tl.store(change + row * of_change + k, tl.where(better, after - before, 0.0), mask=inside)
