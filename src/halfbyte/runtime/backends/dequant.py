"""Dequantize into scratch, multiply with the library's GEMM: oneDNN or MKL on a CPU, `torch._grouped_mm` on CUDA."""

from collections.abc import Mapping

from torch import Tensor

from halfbyte.runtime.backends import dequant_cpu, dequant_cuda
from halfbyte.runtime.backends.routing import sort_by_expert, weighted_sum
from halfbyte.runtime.packed import PackedExperts, PackedLinear, PackedModule

ROWS_AT_ONCE = 2**15
"""Expert rows (tokens times k) in one pass: bounds the float32 intermediates, 0.8 GB at H = 6144; beyond some thousands
a pass more costs nothing, decoding is amortized."""


class DequantBackend:
    name = "dequant"
    rearranges = False

    def prepare(self, packed: Mapping[str, PackedModule]) -> None:
        pass

    def linear(self, module: PackedLinear, hidden: Tensor, scale: Tensor | None) -> Tensor:
        device = dequant_cpu if hidden.device.type == "cpu" else dequant_cuda
        product: Tensor = device.linear(hidden, module.matrices, scale)
        return product.to(hidden.dtype)

    def experts(
        self,
        module: PackedExperts,
        hidden: Tensor,
        top_k_index: Tensor,
        top_k_weights: Tensor,
        scale: Tensor | None,
        down_scale: Tensor | None,
    ) -> Tensor:
        tokens, choices = top_k_index.shape
        step = max(1, ROWS_AT_ONCE // choices)
        if tokens > step:
            result = hidden.new_empty(hidden.shape)
            for a in range(0, tokens, step):
                part = slice(a, a + step)
                result[part] = self.experts(
                    module, hidden[part], top_k_index[part], top_k_weights[part], scale, down_scale
                )
            return result
        device = dequant_cpu if hidden.device.type == "cpu" else dequant_cuda
        routing = sort_by_expert(top_k_index, module.num_experts)
        gate, up = device.grouped(hidden[routing.tokens], module.gate_up, routing.counts, scale).chunk(2, dim=-1)
        joined = (module.act_fn(gate) * up).to(hidden.dtype)
        rows = device.grouped(joined, module.down, routing.counts, down_scale)
        return weighted_sum(rows, routing, top_k_weights).to(hidden.dtype)
