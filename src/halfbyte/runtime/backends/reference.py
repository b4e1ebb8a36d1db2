"""The back end to believe: plain torch in float32, one expert after the other, on any device.

It is the definition, not a fast way to the same number: weights and activations are rounded values multiplied in
ModelOpt's order, experts add up in transformers' order. Float32 results equal those of the dequantized model.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from halfbyte.formats.nvfp4 import torch as values
from halfbyte.runtime.packed import Matrices, PackedExperts, PackedLinear, PackedModule


class ReferenceBackend:
    name = "reference"
    rearranges = False

    def prepare(self, packed: Mapping[str, PackedModule]) -> None:
        pass

    def linear(self, module: PackedLinear, hidden: Tensor, scale: Tensor | None) -> Tensor:
        return multiply(hidden, module.matrices, scale).to(hidden.dtype)

    def experts(
        self,
        module: PackedExperts,
        hidden: Tensor,
        top_k_index: Tensor,
        top_k_weights: Tensor,
        scale: Tensor | None,
        down_scale: Tensor | None,
    ) -> Tensor:
        result = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        for expert in top_k_index.unique().tolist():
            if expert >= module.num_experts:
                continue
            token, position = torch.where(top_k_index == expert)
            gate, up = multiply(hidden[token], module.gate_up.expert(expert), scale).chunk(2, dim=-1)
            out = multiply(module.act_fn(gate) * up, module.down.expert(expert), down_scale)
            result.index_add_(0, token, out * top_k_weights[token, position, None].float())
        return result.to(hidden.dtype)


def multiply(x: Tensor, matrices: Matrices, scale: Tensor | None) -> Tensor:
    """x [M, K] times the transpose of one packed matrix [N, K] -> float32 [M, N].

    scale: round x to NVFP4 with it first (float32 []), None for x as it is.
    """
    x = x.float() if scale is None else values.fake_quantized(x, scale)
    return linear(x, values.dequantized(matrices.codes, matrices.scales, per_row(matrices)))


def per_row(matrices: Matrices) -> Tensor:
    """`weight_scale_2` for each row of a matrix, or of each in a stack: float32 [..., N] (or [..., 1]: for all)."""
    codes, _, scale_2 = matrices
    if scale_2.ndim == codes.ndim - 2:
        return scale_2.unsqueeze(-1)
    return scale_2.repeat_interleave(codes.shape[-2] // scale_2.shape[-1], dim=-1)
