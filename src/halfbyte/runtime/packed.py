"""Modules that hold NVFP4 as it lies in the file, and hand the arithmetic to a back end.

Parameters have the bytes of the checkpoint's tensors; those of all experts of a layer are stacked, gate above up, as
transformers stacks them. Nothing here is trained.

| parameter | dtype | linear [N, K] | experts |
|---|---|---|---|
| codes | uint8 | `weight` [N, K/2] | `gate_up_proj` [E, 2I, H/2], `down_proj` [E, H, I/2] |
| block scales | float8_e4m3fn | `weight_scale` [N, K/16] | `..._scale` [E, 2I, H/16], [E, H, I/16] |
| tensor scale | float32 | `weight_scale_2` [] | `..._scale_2` [E, 2] (gate, up), [E] |
| activation scale | float32 | `input_scale` [] | `..._input_scale` [E, 2], [E] |
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from halfbyte.errors import UnsupportedError
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.runtime.runtime import Runtime


class Matrices(NamedTuple):
    """One packed matrix, or a stack of them: codes [..., N, K/2], scales [..., N, K/16], scale_2 [...] or [..., 2].

    A trailing axis of scale_2 splits the N rows into equal parts (gate and up), one scale for each.
    """

    codes: Tensor
    scales: Tensor
    scale_2: Tensor

    def expert(self, index: int) -> "Matrices":
        return Matrices(self.codes[index], self.scales[index], self.scale_2[index])


class Backend(Protocol):
    """Computes packed linears and experts. One object serves a whole model.

    rearranges: `prepare` has replaced the file's bytes by another layout, so the model can no longer be saved.
    An activation scale (float32 []) means: round that GEMM's input to NVFP4 with it first; None: leave it alone.
    """

    name: str
    rearranges: bool

    def prepare(self, packed: "Mapping[str, PackedModule]") -> None:
        """Called once when loading is done, before any computation."""

    def linear(self, module: "PackedLinear", hidden: Tensor, scale: Tensor | None) -> Tensor:
        """hidden [M, K] -> [M, N], hidden's dtype, without the bias."""
        ...

    def experts(
        self,
        module: "PackedExperts",
        hidden: Tensor,
        top_k_index: Tensor,
        top_k_weights: Tensor,
        scale: Tensor | None,
        down_scale: Tensor | None,
    ) -> Tensor:
        """hidden [M, H], top_k_index int64 [M, k], top_k_weights [M, k] -> [M, H], hidden's dtype.

        The weighted sum over k of down(act(gate(x)) * up(x)). An index of num_experts or more adds nothing.
        """
        ...


class PackedModule(nn.Module):
    """Keeps its dtypes: `model.float()` or `.to(torch.bfloat16)` would otherwise turn scales into other numbers."""

    def __init__(self, runtime: Runtime[Backend]) -> None:
        super().__init__()
        self.runtime = runtime

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedModule":
        dtypes = {name: parameter.dtype for name, parameter in self.named_parameters(recurse=False)}

        def keeping(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            packed = tensor.dtype in (torch.uint8, torch.float8_e4m3fn, torch.float32)
            return moved if moved.dtype == tensor.dtype or not packed else tensor.to(moved.device)

        super()._apply(keeping, recurse)  # type: ignore[no-untyped-call]
        assert all(self.get_parameter(name).dtype == dtype for name, dtype in dtypes.items() if name != "bias")
        return self

    def _packed(self, name: str, dtype: torch.dtype, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False))

    def _matrices(self, name: str) -> Matrices:
        return Matrices(*(self.get_parameter(name + suffix) for suffix in ("", "_scale", "_scale_2")))

    def _check_inference(self, hidden: Tensor) -> None:
        if self.training and torch.is_grad_enabled() and hidden.requires_grad:
            raise UnsupportedError(
                "NVFP4 modules have no backward pass", hint="call model.eval(), or compute under torch.no_grad()"
            )


class PackedLinear(PackedModule):
    """One quantized linear layer, in place of nn.Linear."""

    def __init__(self, linear: nn.Linear, runtime: Runtime[Backend], path: str) -> None:
        super().__init__(runtime)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        _check_width(path, self.in_features)
        self._packed("weight", torch.uint8, self.out_features, self.in_features // 2)
        self._packed("weight_scale", torch.float8_e4m3fn, self.out_features, self.in_features // BLOCK_SIZE)
        self._packed("weight_scale_2", torch.float32)
        if runtime.algorithm == WITH_ACTIVATIONS:
            self._packed("input_scale", torch.float32)
        self.bias = linear.bias

    @property
    def matrices(self) -> Matrices:
        return self._matrices("weight")

    @torch.no_grad()
    def _compute(self, hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, self.in_features)
        scale = self.runtime.activation_scale(self, "input_scale")
        return self.runtime.backend.linear(self, flat, scale).view(*hidden.shape[:-1], self.out_features)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., in_features] -> [..., out_features], same dtype."""
        self._check_inference(hidden)
        result = self._compute(hidden)
        return result if self.bias is None else result + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, nvfp4"


class PackedExperts(PackedModule):
    """All routed experts of one layer, in place of transformers' fused experts module."""

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        act_fn: Callable[[Tensor], Tensor],
        runtime: Runtime[Backend],
        path: str,
    ) -> None:
        super().__init__(runtime)
        self.num_experts, self.hidden_size, self.intermediate_size = num_experts, hidden_size, intermediate_size
        self.act_fn = act_fn
        _check_width(f"{path}.gate_up_proj", self.hidden_size)
        _check_width(f"{path}.down_proj", self.intermediate_size)
        for name, shape, scalars in (
            ("gate_up_proj", (2 * self.intermediate_size, self.hidden_size), (self.num_experts, 2)),
            ("down_proj", (self.hidden_size, self.intermediate_size), (self.num_experts,)),
        ):
            rows, columns = shape
            self._packed(name, torch.uint8, self.num_experts, rows, columns // 2)
            self._packed(f"{name}_scale", torch.float8_e4m3fn, self.num_experts, rows, columns // BLOCK_SIZE)
            self._packed(f"{name}_scale_2", torch.float32, *scalars)
            if runtime.algorithm == WITH_ACTIVATIONS:
                self._packed(f"{name}_input_scale", torch.float32, *scalars)

    @property
    def gate_up(self) -> Matrices:
        return self._matrices("gate_up_proj")

    @property
    def down(self) -> Matrices:
        return self._matrices("down_proj")

    @torch.no_grad()
    def _compute(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        return self.runtime.backend.experts(
            self,
            hidden,
            top_k_index,
            top_k_weights,
            self.runtime.activation_scale(self, "gate_up_proj_input_scale"),
            self.runtime.activation_scale(self, "down_proj_input_scale"),
        )

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden [tokens, H], top_k_index and top_k_weights [tokens, k] -> [tokens, H], hidden's dtype."""
        self._check_inference(hidden)
        return self._compute(hidden, top_k_index, top_k_weights)

    def extra_repr(self) -> str:
        sizes = f"hidden_size={self.hidden_size}, intermediate_size={self.intermediate_size}"
        return f"num_experts={self.num_experts}, {sizes}, nvfp4"


def _check_width(path: str, columns: int) -> None:
    if columns % BLOCK_SIZE:
        raise UnsupportedError(f"{path}: rows of {columns} elements, NVFP4 takes multiples of {BLOCK_SIZE}")
