"""transformers' fused experts: two stacks of matrices, gate above up. Recognised, and refused where they differ."""

from typing import Any

from torch import nn
from transformers.integrations.moe import _default_apply_gate

from halfbyte.errors import UnsupportedError


def is_experts(module: nn.Module) -> bool:
    """Whether this is a fused experts module of transformers: two stacks of matrices."""
    stacks = [getattr(module, name, None) for name in ("gate_up_proj", "down_proj")]
    return all(isinstance(stack, nn.Parameter) and stack.ndim == 3 for stack in stacks)


def check_plain(experts: Any, path: str) -> None:
    """Refuse an experts module that computes anything but down(act(gate) * up)."""
    check_joined(experts, path)
    if type(experts)._apply_gate is not _default_apply_gate:
        raise UnsupportedError(f"{path}: {type(experts).__name__} joins gate and up in its own way")


def check_joined(experts: Any, path: str) -> None:
    """Refuse an experts module that computes anything but down(join(gate and up)), whatever way it joins them."""
    wanted = {"has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True}
    wanted["has_post_expert_norm"] = False
    for name, value in wanted.items():
        if getattr(experts, name, value) != value:
            raise UnsupportedError(f"{path}: {type(experts).__name__} has {name}={not value}, which is not supported")
