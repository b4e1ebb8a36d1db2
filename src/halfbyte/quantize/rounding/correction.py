"""Weights for the inputs that the rounded layers before give, instead of those that the model was trained with.

down_proj sees act(gate) * up of the *rounded* gate and up (and, in four bits, a coarser version of it). The weight
W' that gives the old outputs from the new inputs z best is least squares,

    W' = argmin  E |W' z - W y|^2 + lambda |W' - W|^2,    W'^T = (H + lambda)^-1 (C + lambda) W^T

with H = E z z^T, C = E z y^T. lambda keeps W where tokens are few: see `Settings.correction`.
"""

import torch
from torch import Tensor


def corrected(weight: Tensor, hessian: Tensor, cross: Tensor, share: float) -> Tensor:
    """float32 [N, K]. hessian, cross: [K, K]. share: lambda over the mean diagonal of the Hessian."""
    size = float(hessian.diagonal().mean()) * share
    if not size > 0:
        return weight
    ridge = size * torch.eye(len(hessian), device=hessian.device)
    lower, failed = torch.linalg.cholesky_ex(hessian + ridge)
    if bool(failed):
        return weight
    return torch.cholesky_solve((cross + ridge) @ weight.t(), lower).t().contiguous()
