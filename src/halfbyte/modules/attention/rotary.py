"""The two rotary embeddings of DeepSeek-style models, on one tensor at a time.

Same formulas and order of operations as `apply_rotary_pos_emb_interleave` and `apply_rotary_pos_emb` of transformers
5.23 (models/glm_moe_dsa and models/deepseek_v32), which insist on a query and a key together.
"""

from collections.abc import Callable

import torch

Rotate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (x0, x1), (x2, x3), ... of x [..., D]; cos, sin [..., D] hold each angle twice, halves apart.

    The result is de-interleaved (all first members, then all second ones): queries and keys agree on that.
    """
    cos, sin = cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (x[i], x[i + D/2]) of x [..., D]; cos, sin [..., D]."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos) + (torch.cat((-second, first), dim=-1) * sin)


def rotate_first(x: torch.Tensor, size: int, rotate: Rotate, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first `size` of the last dimension, pass the rest: the layout of index queries and keys."""
    return torch.cat([rotate(x[..., :size], cos, sin), x[..., size:]], dim=-1)
