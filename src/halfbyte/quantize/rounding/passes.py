"""The passes over a matrix: columns, then descent."""

from torch import Tensor

from halfbyte.quantize.rounding.block import Grid
from halfbyte.quantize.rounding.columns import round_columns
from halfbyte.quantize.rounding.descent import Blocks, descend
from halfbyte.quantize.rounding.factor import Factor


def rounded_grid(weight: Tensor, factor: Factor, hessian: Tensor, blocks: Blocks, sweeps: int) -> tuple[Tensor, Tensor]:
    """Codes (E2M1 values, float32 [N, K]) and scales (E4M3 bytes, uint8 [N, K/16]).

    weight: float32 [N, K], in units of weight_scale_2. factor, blocks: of `hessian`, float32 [K, K].
    """
    grid = Grid.of(weight)
    round_columns(grid, factor)
    for _ in range(sweeps):
        descend(grid, hessian, blocks)
    return grid.codes, grid.scales
