"""From a Hessian to what rounding needs: one Cholesky factorisation.

Rounding W [N, K] to Q costs tr((W - Q) H (W - Q)^T). With H = R R^T, R upper triangular, that is |(W - Q) R|^2, and
its column k depends on the columns of Q up to k alone. So Q can be chosen from left to right, each block of 16 columns
for what the blocks before it left over: this is GPTQ, whose inverse Hessian, its factor and the inverse of that are
not needed (the same identity as LDLQ, arXiv 2307.13304; GPTQ: arXiv 2210.17323).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE


@dataclass(frozen=True)
class Factor:
    """H = R R^T by blocks of 16 columns.

    carry: float32 [K, K], strictly upper by blocks: what errors of earlier columns add to the target of a block,
    R[:b, b] R[b, b]^-1. inner: float32 [K/16, 16, 16], unit upper triangular, R[b, b] with its columns divided by
    their diagonal. weight: float32 [K/16, 16], that diagonal squared, the cost of a column's error.
    """

    carry: Tensor
    inner: Tensor
    weight: Tensor


def factorised(hessian: Tensor) -> Factor | None:
    """Factor of H [K, K] (float32, symmetric); None if H is not positive definite in float32."""
    lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if bool(failed) or not bool(lower.isfinite().all()):
        return None
    return _by_blocks(lower.flip(0, 1).contiguous())


def damped(hessian: Tensor, share: float) -> Tensor:
    """The Hessian divided by its mean diagonal, `share` added to the diagonal.

    A Hessian without energy becomes the identity: plain nearest rounding.
    """
    mean = hessian.diagonal().mean()
    if not bool(mean > 0):
        return torch.eye(len(hessian), device=hessian.device)
    result = hessian / mean
    result.diagonal().add_(share)
    return result


def _by_blocks(upper: Tensor) -> Factor:
    size = upper.shape[0]
    blocks = size // BLOCK_SIZE
    tiles = upper.view(blocks, BLOCK_SIZE, blocks, BLOCK_SIZE)
    own = tiles.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
    columns = tiles.permute(2, 0, 1, 3).reshape(blocks, size, BLOCK_SIZE)
    carry = torch.linalg.solve_triangular(own, columns, upper=True, left=False)
    carry = carry.permute(1, 0, 2).reshape(size, size)
    diagonal = own.diagonal(dim1=1, dim2=2)
    return Factor(carry, own / diagonal.unsqueeze(1), diagonal.square().contiguous())
