"""One block of 16 columns of every row: its E4M3 scale and its codes, chosen together.

For each of 16 scales around the max rule's (half of it to just below twice), the columns are rounded one by one, each
for the error of those before it; the scale with the least cost stays, the max rule's in a tie. Everything is in units
of `weight_scale_2`: steps are plain E4M3 values, and nothing underflows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE


@dataclass(frozen=True)
class Grid:
    """A matrix on its way to four bits, in units of weight_scale_2.

    weight: float32 [N, K]. codes: E2M1 values, float32 [N, K]. scales: E4M3 bytes, uint8 [N, K/16].
    error: float32 [N, K], weight less the value of code and scale.
    """

    weight: Tensor
    codes: Tensor
    scales: Tensor
    error: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "Grid":
        """Nothing rounded yet."""
        scales = weight.new_zeros((len(weight), weight.shape[1] // BLOCK_SIZE), dtype=torch.uint8)
        return cls(weight, torch.zeros_like(weight), scales, torch.zeros_like(weight))


def round_block(
    grid: Grid, block: int, wanted: Tensor, inner: Tensor, weight: Tensor, away: Tensor | None = None
) -> Tensor:
    """Round one block of every row of `grid`, in place. Returns by how much its error changed, float32 [N, 16].

    wanted: float32 [N, 16], what the block's values should be given everything else. inner: float32 [16, 16], unit
    upper triangular: what the error of a column adds to the target of a later one. weight: float32 [16], the cost of a
    column's squared error. away: float32 [N, 16], how far the block's present values are from `wanted`: a row whose
    present cost is no higher keeps what it has.
    """
    if wanted.device.type == "cuda":
        from halfbyte.quantize.rounding.block_cuda import round_rows  # needs triton
    else:
        from halfbyte.quantize.rounding.block_cpu import round_rows
    own = slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
    change = torch.empty_like(wanted)
    parts = grid.weight[:, own], grid.codes[:, own], grid.scales[:, block], grid.error[:, own]
    round_rows(wanted, away, inner.contiguous(), weight.contiguous(), *parts, change)
    return change
