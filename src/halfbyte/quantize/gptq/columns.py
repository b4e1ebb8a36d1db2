"""The column loop: blocks of 16 columns from left to right, all rows at once, scale and codes of a block together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.nvfp4.format import BLOCK_SIZE
from halfbyte.quantize.gptq.factor import Factor
from halfbyte.quantize.gptq.grid import candidates, nearest, step_of

BATCH_COLUMNS = 128
"""Columns between which errors pass block by block; older errors come in by one product for the whole batch."""


@dataclass(frozen=True)
class Rounded:
    """One matrix [N, K]. codes: E2M1 values, float32 [N, K]. scales: E4M3 bytes, uint8 [N, K/16]."""

    codes: Tensor
    scales: Tensor
    scale_2: float

    def dequantized(self) -> Tensor:
        """float32 [N, K], as every loader decodes it: code * (scale * scale_2)."""
        steps = step_of(self.scales, self.scale_2).unsqueeze(-1)
        values: Tensor = self.codes.unflatten(-1, (-1, BLOCK_SIZE)) * steps
        return values.flatten(-2)


def rounded(weight: Tensor, factor: Factor, scale_2: float) -> Rounded:
    """Round float32 `weight` [N, K] so that the outputs that the factor stands for change least."""
    rows, columns = weight.shape
    error = torch.zeros_like(weight)
    codes = torch.empty_like(weight)
    scales = torch.empty((rows, columns // BLOCK_SIZE), dtype=torch.uint8, device=weight.device)
    for start in range(0, columns, BATCH_COLUMNS):
        stop = min(start + BATCH_COLUMNS, columns)
        target = weight[:, start:stop] + error[:, :start] @ factor.carry[:start, start:stop]
        for first in range(start, stop, BLOCK_SIZE):
            own, block = slice(first, first + BLOCK_SIZE), first // BLOCK_SIZE
            wanted = target[:, first - start : first - start + BLOCK_SIZE]
            wanted = wanted + error[:, start:first] @ factor.carry[start:first, own]
            codes[:, own], scales[:, block], values = rounded_block(
                wanted, factor.inner[block], factor.weight[block], scale_2
            )
            error[:, own] = weight[:, own] - values
    return Rounded(codes, scales, scale_2)


def nearest_rounded(weight: Tensor, scale_2: float) -> Rounded:
    """The max rule: scale from a block's largest magnitude, nearest codes. weight: float32 [N, K]."""
    blocks = weight.unflatten(-1, (-1, BLOCK_SIZE)).flatten(0, 1)
    scales = candidates(blocks, scale_2)[0].to(torch.uint8)
    codes = nearest(blocks / step_of(scales, scale_2).unsqueeze(-1))
    return Rounded(codes.view_as(weight), scales.view(len(weight), -1), scale_2)


def rounded_block(wanted: Tensor, inner: Tensor, weight: Tensor, scale_2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and codes of one block of every row: for each scale tried, the 16 columns one by one, each column for the
    error of those before it; the scale with the least cost is kept, the max rule's in a tie.

    wanted: float32 [N, 16]. inner, weight: of `Factor`, for this block.
    Returns codes (E2M1 values, float32 [N, 16]), scales (uint8 [N]) and values (float32 [N, 16]).
    """
    tried = candidates(wanted, scale_2)
    steps = step_of(tried, scale_2)
    codes, cost = _columns(wanted, inner, weight, steps)
    best = cost.argmin(0, keepdim=True)
    scales = tried.gather(0, best)[0].to(torch.uint8)
    chosen = codes.gather(1, best.unsqueeze(0).expand(BLOCK_SIZE, -1, -1))[:, 0].t().contiguous()
    return chosen, scales, chosen * step_of(scales, scale_2).unsqueeze(-1)


def _columns(wanted: Tensor, inner: Tensor, weight: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [16, C, N] under every scale, and their costs [C, N]. steps: [C, N]."""
    codes: list[Tensor] = []
    errors: list[Tensor] = []
    cost = torch.zeros_like(steps)
    for k in range(BLOCK_SIZE):
        own = wanted[:, k].unsqueeze(0)
        target = own
        for j in range(k):
            target = torch.addcmul(target, errors[j], inner[j, k])
        code = nearest(target / steps)
        value = code * steps
        cost = torch.addcmul(cost, weight[k], (target - value).square())
        codes.append(code)
        errors.append(own - value)
    return torch.stack(codes), cost
