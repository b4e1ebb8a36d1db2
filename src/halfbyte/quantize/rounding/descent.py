"""Coordinate descent after the column loop: every block once more, given all the others.

The column loop chooses a block before those to its right are known. Afterwards each block's best target is known
exactly: W[b] + E[-b] H[-b, b] H[b, b]^-1, with E = W - Q. Scale and codes are chosen again for it, and taken where they
cost less: the cost falls with every step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE
from halfbyte.quantize.rounding.block import Grid, round_block
from halfbyte.quantize.rounding.columns import BATCH_COLUMNS


@dataclass(frozen=True)
class Blocks:
    """Of the diagonal blocks of a Hessian: inverse, inner: float32 [K/16, 16, 16]; weight: [K/16, 16].

    inner and weight: as in `Factor`, of each block alone.
    """

    inverse: Tensor
    inner: Tensor
    weight: Tensor


def diagonal_blocks(hessian: Tensor) -> Blocks:
    """Of a positive definite H [K, K]."""
    count = hessian.shape[0] // BLOCK_SIZE
    matrix = hessian.view(count, BLOCK_SIZE, count, BLOCK_SIZE).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
    upper = torch.linalg.cholesky(matrix.flip(1, 2)).flip(1, 2)
    diagonal = upper.diagonal(dim1=1, dim2=2)
    return Blocks(torch.linalg.inv(matrix), upper / diagonal.unsqueeze(1), diagonal.square())


def descend(grid: Grid, hessian: Tensor, blocks: Blocks) -> None:
    """One pass over the blocks of a rounded grid, in place. hessian: positive definite [K, K]; blocks: of it."""
    for start in range(0, grid.weight.shape[1], BATCH_COLUMNS):
        stop = min(start + BATCH_COLUMNS, grid.weight.shape[1])
        pull = grid.error @ hessian[:, start:stop]
        for first in range(start, stop, BLOCK_SIZE):
            own, local, block = slice(first, first + BLOCK_SIZE), first - start, first // BLOCK_SIZE
            # pull = E H; times the inverse of the block's own H it says how far off the block is
            away = pull[:, local : local + BLOCK_SIZE] @ blocks.inverse[block]
            wanted = grid.weight[:, own] - grid.error[:, own] + away
            change = round_block(grid, block, wanted, blocks.inner[block], blocks.weight[block], away)
            pull[:, local + BLOCK_SIZE :].addmm_(change, hessian[own, first + BLOCK_SIZE : stop])
