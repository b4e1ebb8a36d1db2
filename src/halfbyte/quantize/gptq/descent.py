"""Coordinate descent after the column loop: every block once more, given all the others.

The column loop chooses a block before those to its right are known. Afterwards each block's best target is known
exactly: W[b] + E[-b] H[-b, b] H[b, b]^-1, with E = W - Q. Scale and codes are chosen again for it, and taken where they
cost less: the cost falls with every step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.nvfp4.format import BLOCK_SIZE
from halfbyte.quantize.gptq.columns import BATCH_COLUMNS, Rounded, rounded_block
from halfbyte.quantize.gptq.factor import damped


@dataclass(frozen=True)
class Blocks:
    """The diagonal blocks of a damped Hessian. matrix, inverse, inner: float32 [K/16, 16, 16]; weight: [K/16, 16].

    inner and weight: as in `Factor`, of each block alone.
    """

    matrix: Tensor
    inverse: Tensor
    inner: Tensor
    weight: Tensor


def diagonal_blocks(hessian: Tensor) -> Blocks:
    """Of a positive definite H [K, K]."""
    count = hessian.shape[0] // BLOCK_SIZE
    matrix = hessian.view(count, BLOCK_SIZE, count, BLOCK_SIZE).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
    upper = torch.linalg.cholesky(matrix.flip(1, 2)).flip(1, 2)
    diagonal = upper.diagonal(dim1=1, dim2=2)
    return Blocks(matrix, torch.linalg.inv(matrix), upper / diagonal.unsqueeze(1), diagonal.square())


def descended(weight: Tensor, first: Rounded, hessian: Tensor, damping: float, sweeps: int) -> Rounded:
    """`first` after `sweeps` passes over the blocks. hessian: [K, K]; damping: as `factorised` took it."""
    if not sweeps:
        return first
    hessian = damped(hessian, damping)
    blocks = diagonal_blocks(hessian)
    codes, scales = first.codes.clone(), first.scales.clone()
    error = weight - first.dequantized()
    for _ in range(sweeps):
        for start in range(0, weight.shape[1], BATCH_COLUMNS):
            stop = min(start + BATCH_COLUMNS, weight.shape[1])
            batch = slice(start, stop)
            pull = error @ hessian[:, batch]
            for begin in range(start, stop, BLOCK_SIZE):
                own, local, block = slice(begin, begin + BLOCK_SIZE), begin - start, begin // BLOCK_SIZE
                # pull = E H; the block's own error aside, it says where the block should go
                now = pull[:, local : local + BLOCK_SIZE] @ blocks.inverse[block]
                wanted = weight[:, own] + now - error[:, own]
                code, scale, value = rounded_block(wanted, blocks.inner[block], blocks.weight[block], first.scale_2)
                better = _cost(wanted - value, blocks.matrix[block]) < _cost(now, blocks.matrix[block])
                change = torch.where(better.unsqueeze(-1), weight[:, own] - value - error[:, own], 0.0)
                codes[:, own] = torch.where(better.unsqueeze(-1), code, codes[:, own])
                scales[:, block] = torch.where(better, scale, scales[:, block])
                error[:, own] += change
                pull += change @ hessian[own, batch]
    return Rounded(codes, scales, first.scale_2)


def _cost(error: Tensor, matrix: Tensor) -> Tensor:
    return ((error @ matrix) * error).sum(-1)
