"""The column loop: blocks of 16 columns from left to right, each for what the blocks before it left over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE
from halfbyte.formats.nvfp4.torch import max_scales, nearest, step_of
from halfbyte.quantize.rounding.block import Grid, round_block
from halfbyte.quantize.rounding.factor import Factor

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


def round_columns(grid: Grid, factor: Factor) -> None:
    """Round all of `grid`, in place, so that the outputs that the factor stands for change least."""
    for start in range(0, grid.weight.shape[1], BATCH_COLUMNS):
        stop = min(start + BATCH_COLUMNS, grid.weight.shape[1])
        target = torch.addmm(grid.weight[:, start:stop], grid.error[:, :start], factor.carry[:start, start:stop])
        for first in range(start, stop, BLOCK_SIZE):
            own, block = slice(first, first + BLOCK_SIZE), first // BLOCK_SIZE
            here = target[:, first - start : first - start + BLOCK_SIZE]
            wanted = torch.addmm(here, grid.error[:, start:first], factor.carry[start:first, own])
            round_block(grid, block, wanted, factor.inner[block], factor.weight[block])


def nearest_rounded(weight: Tensor, scale_2: float) -> Rounded:
    """The max rule: scale from a block's largest magnitude, nearest codes. weight: float32 [N, K]."""
    blocks = weight.unflatten(-1, (-1, BLOCK_SIZE)).flatten(0, 1)
    scales = max_scales(blocks, scale_2)
    codes = nearest(blocks / step_of(scales, scale_2).unsqueeze(-1))
    return Rounded(codes.view_as(weight), scales.view(len(weight), -1), scale_2)
