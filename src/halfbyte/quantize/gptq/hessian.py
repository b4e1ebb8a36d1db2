"""Second moments of inputs: H = X^T X / n, and their mixture with the layer's."""

import torch
from torch import Tensor

from halfbyte.errors import NonFiniteError

CHUNK_ROWS = 8192
"""Rows multiplied at a time, always the same: the sum's order, and so its bits, follow from the rows alone."""


def second_moment(x: Tensor, name: str) -> Tensor:
    """float32 [K, K] of inputs [n, K]; zeros for none. Raises NonFiniteError naming `name` for NaN or Inf inputs."""
    total = torch.zeros((x.shape[1], x.shape[1]), dtype=torch.float32, device=x.device)
    for start in range(0, len(x), CHUNK_ROWS):
        part = x[start : start + CHUNK_ROWS].float()
        total.addmm_(part.t(), part)
    if not bool(total.isfinite().all() & total.diagonal().sum().isfinite()):
        raise NonFiniteError(
            f"{name}: NaN or Inf among its {len(x)} calibration inputs",
            hint="the model overflows on this text; check the weights, or compute in another dtype",
        )
    return total / max(1, len(x))


def mixed(own: Tensor, tokens: int, prior: Tensor, prior_tokens: int) -> Tensor:
    """(n * own + tau * prior) / (n + tau): the prior stands for tau tokens of the layer at large."""
    total = tokens + prior_tokens
    return own if total == 0 else (tokens * own + prior_tokens * prior) / total
