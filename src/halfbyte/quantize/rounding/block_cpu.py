"""`block.round_block` on a CPU: row after row, the 16 scales as the lanes of the inner loops."""

import numpy as np
import numpy.typing as npt
from numba import njit
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE, E4M3_MAX, E4M3_MIN, SCALE_FIRST, SCALE_LAST, SCALE_ONE
from halfbyte.quantize.rounding.scales_tried import RECIPROCALS, SCALES_BELOW, SCALES_TRIED, STEPS

Floats = npt.NDArray[np.float32]


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
    arrays = [x.numpy() for x in (wanted, wanted if away is None else away, inner, cost, weight)]
    _round_rows(*arrays, away is not None, STEPS, RECIPROCALS, *[x.numpy() for x in (codes, scales, error, change)])


@njit(nogil=True, cache=True, error_model="numpy")
def _start(amax: np.float32) -> int:
    """The max rule's scale byte for a block's largest magnitude, in units of weight_scale_2: E4M3(amax / 6)."""
    ratio = amax / np.float32(6)
    if ratio == 0:
        return SCALE_ONE
    ratio = min(max(ratio, np.float32(E4M3_MIN)), np.float32(E4M3_MAX))
    exponent: int = max(int(np.floor(np.log2(ratio))), -6)
    mantissa: int = int(np.rint(np.ldexp(ratio, 3 - exponent)))  # 8 to 16; below 8 where subnormal
    return min(mantissa + 8 * (exponent + 6), SCALE_LAST)


@njit(nogil=True, cache=True, error_model="numpy")
def _cost_of(away: Floats, inner: Floats, column_cost: Floats) -> np.float32:
    """Of values that are `away` [16] from what is wanted."""
    total = np.float32(0)
    for k in range(BLOCK_SIZE):
        distance = away[k]
        for j in range(k):
            distance += away[j] * inner[j, k]
        total += column_cost[k] * (distance * distance)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _round_rows(
    wanted: Floats,
    away: Floats,
    inner: Floats,
    column_cost: Floats,
    weight: Floats,
    compare: bool,
    steps: Floats,
    reciprocals: Floats,
    codes: Floats,
    scales: npt.NDArray[np.uint8],
    errors: Floats,
    change: Floats,
) -> None:
    lane_byte = np.empty(SCALES_TRIED, np.int64)
    step, reciprocal = np.empty(SCALES_TRIED, np.float32), np.empty(SCALES_TRIED, np.float32)
    cost, target = np.empty(SCALES_TRIED, np.float32), np.empty(SCALES_TRIED, np.float32)
    code = np.empty((BLOCK_SIZE, SCALES_TRIED), np.float32)
    error = np.empty((BLOCK_SIZE, SCALES_TRIED), np.float32)
    for row in range(wanted.shape[0]):
        amax = np.float32(0)
        for k in range(BLOCK_SIZE):
            amax = max(amax, abs(wanted[row, k]))
        first = _start(amax) - SCALES_BELOW
        for lane in range(SCALES_TRIED):
            lane_byte[lane] = min(max(first + lane, SCALE_FIRST), SCALE_LAST)
            step[lane], reciprocal[lane] = steps[lane_byte[lane]], reciprocals[lane_byte[lane]]
            cost[lane] = 0
        for k in range(BLOCK_SIZE):
            own = wanted[row, k]
            for lane in range(SCALES_TRIED):
                target[lane] = own
            for j in range(k):
                share = inner[j, k]
                for lane in range(SCALES_TRIED):
                    target[lane] += error[j, lane] * share
            for lane in range(SCALES_TRIED):
                x = target[lane] * reciprocal[lane]
                magnitude = min(abs(x), np.float32(6))
                spacing, per = np.float32(0.5), np.float32(2)
                if magnitude >= np.float32(2):
                    spacing, per = np.float32(1), np.float32(1)
                if magnitude >= np.float32(4):
                    spacing, per = np.float32(2), np.float32(0.5)
                nearest = np.rint(magnitude * per) * spacing
                nearest = -nearest if x < np.float32(0) else nearest
                value = nearest * step[lane]
                distance = target[lane] - value
                code[k, lane] = nearest
                cost[lane] += column_cost[k] * (distance * distance)
                error[k, lane] = own - value
        best = SCALES_BELOW
        for lane in range(SCALES_TRIED):
            if cost[lane] < cost[best]:
                best = lane
        if compare and cost[best] >= _cost_of(away[row], inner, column_cost):
            change[row] = 0
            continue
        scales[row] = lane_byte[best]
        for k in range(BLOCK_SIZE):
            codes[row, k] = code[k, best]
            after = weight[row, k] - code[k, best] * step[best]
            change[row, k] = after - errors[row, k]
            errors[row, k] = after
