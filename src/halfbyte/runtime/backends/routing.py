"""From each token's choice of experts to each expert's run of rows, and back to a weighted sum."""

from typing import NamedTuple

import torch
from torch import Tensor


class Routing(NamedTuple):
    """order: int64 [M*k], the flat (token, choice) pairs sorted by expert. tokens: order // k, the token of each row.

    counts: int64 [E], rows of each expert; rows of indices beyond E come last and are in no expert's run.
    """

    order: Tensor
    tokens: Tensor
    counts: Tensor


def sort_by_expert(top_k_index: Tensor, num_experts: int) -> Routing:
    flat = top_k_index.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)[:num_experts]
    return Routing(order, order // top_k_index.shape[1], counts)


def weighted_sum(rows: Tensor, routing: Routing, top_k_weights: Tensor) -> Tensor:
    """rows: float [M*k, H] in sorted order -> float32 [M, H]: each token's rows, times its weights, added up.

    Gathered and summed, not scattered, in ascending order of the experts, as transformers adds: the result is always
    the same.
    """
    tokens, choices = top_k_weights.shape
    position = torch.empty_like(routing.order)
    position[routing.order] = torch.arange(len(routing.order), device=rows.device)
    position, choice = position.view(tokens, choices).sort(1)
    weights = top_k_weights.float().gather(1, choice)
    result = torch.zeros((tokens, rows.shape[1]), dtype=torch.float32, device=rows.device)
    for at, weight in zip(position.unbind(1), weights.unbind(1), strict=True):
        result += rows[at].float() * weight[:, None]
    return result
