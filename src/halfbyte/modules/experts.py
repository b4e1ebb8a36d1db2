"""transformers' fused experts: two stacks of matrices, gate above up, or up alone. Recognised, and refused where they
differ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.integrations.moe import _default_apply_gate

from halfbyte.errors import UnsupportedError


def is_experts(module: nn.Module) -> bool:
    """Whether this is a fused experts module of transformers: two stacks of matrices."""
    return all(isinstance(stack, nn.Parameter) and stack.ndim == 3 for stack in _stacks(module))


def _stacks(module: nn.Module) -> list[Any]:
    first = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
    return [getattr(module, name, None) for name in (first, "down_proj")]


def join_of(experts: Any) -> Callable[[Tensor], Tensor]:
    """How an expert makes its intermediate [n, I] of what its first stack gives: gate and up [n, 2I], or up [n, I]."""
    if not has_frame(experts):
        return lambda gate_up: _in_halves(experts, gate_up)
    join: Callable[[Tensor], Tensor] = experts._apply_gate if experts.has_gate else experts.act_fn
    return join


def has_frame(experts: Any) -> bool:
    """Whether the module is one of many by its frame. Llama 4's and LongCat-Flash's are written out: gate before up."""
    return hasattr(experts, "has_gate")


def _in_halves(experts: Any, gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    joined: Tensor = up * experts.act_fn(gate)
    return joined


def check_plain(experts: Any, path: str) -> None:
    """Refuse an experts module that computes anything but down(act(gate) * up)."""
    check_joined(experts, path)
    if not has_frame(experts):
        raise UnsupportedError(f"{path}: {type(experts).__name__} computes experts in its own way")
    if not experts.has_gate:
        raise UnsupportedError(f"{path}: {type(experts).__name__} has no gate")
    if type(experts)._apply_gate is not _default_apply_gate:
        raise UnsupportedError(f"{path}: {type(experts).__name__} joins gate and up in its own way")


def check_joined(experts: Any, path: str, stacked: bool = False) -> None:
    """Refuse an experts module that computes anything but down(join(gate and up)), whatever way it joins them, or
    without a gate down(act(up)).

    stacked: the checkpoint has the stacks as the module has them. Then they may have biases, and gate and up may lie
    interleaved, which is the join's matter.
    """
    wanted = {"has_post_expert_norm": False}
    if not stacked:
        wanted |= {"has_bias": False, "is_transposed": False, "is_concatenated": True}
    for name, value in wanted.items():
        if getattr(experts, name, value) != value:
            raise UnsupportedError(f"{path}: {type(experts).__name__} has {name}={not value}, which is not supported")


@dataclass(frozen=True)
class Biases:
    """Of one expert: gate_up [2I], in the order of the stack, and down [H]; None where there are none."""

    gate_up: Tensor | None = None
    down: Tensor | None = None

    @classmethod
    def of(cls, experts: Any, number: int) -> "Biases":
        if not getattr(experts, "has_bias", False):
            return cls()
        return cls(experts.gate_up_proj_bias[number], experts.down_proj_bias[number])
