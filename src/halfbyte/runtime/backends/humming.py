"""humming-kernels: weight-only NVFP4 GEMMs on any CUDA GPU from capability 7.5 on, for decode and prefill.

`prepare` rearranges each module's weights into humming's layout, one module at a time, and drops the file's: peak
memory is the model and one module, and the model can no longer be saved. Kernels are compiled when first needed (NVRTC,
a few seconds for a layer type) and kept in humming's disk cache (`HUMMING_CACHE_DIR`, see docs/runtime.md).

Two ways through a layer: *indexed* GEMMs read each row where it lies, sorted by index; *grouped* ones want the rows
copied into runs, and win once an expert has many rows.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from humming.config import GemmType
from humming.forward import humming_forward
from humming.schema.modelopt import ModeloptNvfp4WeightSchema
from humming.transform import prepare_fp16_e8m0_scale, prepare_layer_config, transform_humming_tensors
from humming.tune import get_heuristics_config
from torch import Tensor, nn

from halfbyte.errors import UnsupportedError
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.runtime.backends import glue
from halfbyte.runtime.packed import Matrices, PackedExperts, PackedLinear, PackedModule

GROUPED_FROM, GROUPED_WIDTH = 200, 1024
"""Rows per expert and intermediate size from which grouped beats indexed, on an H100: at E = 32, I = 2048 between 64
and 256 rows; at E = 256, I = 256 never, up to 512 rows (copying rows costs more than the GEMMs gain)."""
UNSORTED_SHARE = 0.3
"""Up to this ratio of rows to experts each row gets a block to itself, without sorting: hardly two share an expert.
On an H100 that is 12 % faster at 0.25; at 0.5 it gains 5 % for I = 256 and loses 8 % for I = 2048."""
LOCKS = 2048


class Gemm(NamedTuple):
    """One packed matrix or stack in humming's layout, and what its kernels need."""

    config: Any
    tensors: dict[str, Tensor]
    locks: Tensor

    @classmethod
    def build(cls, matrices: Matrices, dtype: torch.dtype) -> "Gemm":
        """From the file's layout. dtype: of activations, bfloat16 or float16."""
        codes, scales, scale_2 = matrices
        rows, columns = codes.shape[-2], 2 * codes.shape[-1]
        experts = codes.shape[0] if codes.ndim == 3 else None
        parts = scale_2.shape[-1] if scale_2.ndim == codes.ndim - 1 else 1
        schema, tensors = ModeloptNvfp4WeightSchema(quant_algo="nvfp4").convert_humming(
            tensors={"weight": codes.contiguous(), "weight_scale": scales, "weight_scale_2": scale_2},
            shape_n_stacks=[rows // parts] * parts,
            shape_k_stacks=[columns],
            param_dtype=dtype,
            num_experts=experts,
            device=codes.device,
        )
        config = prepare_layer_config(
            shape_n=rows,
            shape_k=columns,
            weight_schema=schema,
            num_experts=experts,
            torch_dtype=dtype,
            device=codes.device,
            tensors=tensors,
        )
        config, tensors = prepare_fp16_e8m0_scale(config, tensors)
        tensors = transform_humming_tensors(config, tensors)
        # stream-K synchronizes through these; layers on different streams must not share them
        locks = torch.zeros(LOCKS, dtype=torch.int32, device=codes.device)
        return cls(config, tensors, locks)

    def __call__(self, inputs: Tensor, gemm_type: GemmType, **routing: Any) -> Tensor:
        output: Tensor = humming_forward(
            self.config,
            inputs=inputs,
            locks=self.locks,
            compute_config=json.dumps({"gemm_type": gemm_type.value}),
            **{name: self.tensors.get(name) for name in ("weight", "weight_scale", "weight_scale_2")},
            **routing,
        )
        return output

    def block_rows(self, rows: int, device: torch.device) -> int:
        """Rows of one block of the indexed kernel that humming's heuristics pick for this many rows."""
        for low, high, config in get_heuristics_config(self.config, gemm_type="indexed", device=device):
            if low < rows <= high:
                return int(config["block_shape"][0])
        raise UnsupportedError(f"humming-kernels has no kernel for {rows} rows")


class Layer(NamedTuple):
    gate_up: Gemm
    down: Gemm


class HummingBackend:
    name = "humming"
    rearranges = True

    def __init__(self) -> None:
        self._layers: dict[int, Layer] = {}
        self._linears: dict[int, Gemm] = {}
        self._unsorted: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def prepare(self, packed: Mapping[str, PackedModule]) -> None:
        for module in packed.values():
            if isinstance(module, PackedExperts):
                self._layers[id(module)] = Layer(
                    Gemm.build(module.gate_up, torch.bfloat16), Gemm.build(module.down, torch.bfloat16)
                )
                names: tuple[str, ...] = ("gate_up_proj", "down_proj")
            else:
                assert isinstance(module, PackedLinear)
                self._linears[id(module)] = Gemm.build(module.matrices, torch.bfloat16)
                names = ("weight",)
            for name in (*names, *(f"{name}_scale" for name in names)):
                old = module.get_parameter(name)
                setattr(module, name, nn.Parameter(old.new_empty(0), requires_grad=False))

    def linear(self, module: PackedLinear, hidden: Tensor, scale: Tensor | None) -> Tensor:
        x = _input(hidden, scale)
        return _output(self._linears[id(module)](x, GemmType.DENSE), scale, hidden.dtype)

    def experts(
        self,
        module: PackedExperts,
        hidden: Tensor,
        top_k_index: Tensor,
        top_k_weights: Tensor,
        scale: Tensor | None,
        down_scale: Tensor | None,
    ) -> Tensor:
        layer = self._layers[id(module)]
        rows, experts = top_k_index.numel(), module.num_experts
        x = _input(hidden, scale)
        many = rows >= GROUPED_FROM * experts and module.intermediate_size >= GROUPED_WIDTH
        run = self._grouped if many else self._indexed

        def between(gate_up: Tensor) -> Tensor:
            gate_up = _output(gate_up, scale, torch.bfloat16)
            if isinstance(module.act_fn, nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation":
                joined = glue.silu_mul(gate_up)
            else:
                gate, up = gate_up.chunk(2, dim=-1)
                joined = module.act_fn(gate) * up
            return _input(joined, down_scale)

        weights = top_k_weights if down_scale is None else top_k_weights * down_scale
        return run(layer, x, top_k_index, weights, experts, between).to(hidden.dtype)

    def _indexed(
        self, layer: Layer, x: Tensor, top_k_index: Tensor, weights: Tensor, experts: int, between: Any
    ) -> Tensor:
        tokens, choices = top_k_index.shape
        rows = tokens * choices
        blocks = [gemm.block_rows(rows, x.device) for gemm in layer]
        first = self._align(top_k_index, experts, blocks[0])
        second = first if blocks[1] == blocks[0] else self._align(top_k_index, experts, blocks[1])
        joined = between(layer.gate_up(x, GemmType.INDEXED, top_k=choices, **first))
        return glue.weighted_sum(layer.down(joined, GemmType.INDEXED, top_k=1, **second), weights)

    def _align(self, top_k_index: Tensor, experts: int, block: int) -> dict[str, Tensor]:
        rows = top_k_index.numel()
        if top_k_index.shape[0] == 1 or rows <= UNSORTED_SHARE * experts:
            # row i is the first of block i, the rest is padding: the same for any routing, so made once
            key = (rows, block, top_k_index.device)
            if key not in self._unsorted:
                ids = torch.full((rows, block), rows, dtype=torch.int32, device=top_k_index.device)
                ids[:, 0] = torch.arange(rows, dtype=torch.int32, device=top_k_index.device)
                padded = torch.full((1,), rows * block, dtype=torch.int32, device=top_k_index.device)
                self._unsorted[key] = ids.view(-1), padded
            ids, padded = self._unsorted[key]
            expert_ids = top_k_index.reshape(-1).to(torch.int32)
        else:
            ids, expert_ids, padded = glue.align(top_k_index, experts, block)
        return {"sorted_ids": ids, "expert_ids": expert_ids, "num_tokens_padded": padded}

    def _grouped(
        self, layer: Layer, x: Tensor, top_k_index: Tensor, weights: Tensor, experts: int, between: Any
    ) -> Tensor:
        flat = top_k_index.reshape(-1)
        order = flat.argsort()
        ends = torch.searchsorted(flat[order], torch.arange(experts, device=x.device), right=True)
        layout = torch.nn.functional.pad(ends, (1, 0)).to(torch.int64)
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order), device=x.device)
        kind = GemmType.GROUPED_CONTIGUOUS
        joined = between(layer.gate_up(x[order // top_k_index.shape[1]], kind, expert_layout=layout))
        return glue.weighted_sum(layer.down(joined, kind, expert_layout=layout), weights, position)


def _input(x: Tensor, scale: Tensor | None) -> Tensor:
    """bfloat16, rounded to NVFP4 (without the factor `scale`) if asked: exact in bfloat16."""
    return (x if scale is None else values.quantized_activations(x, scale)).to(torch.bfloat16).contiguous()


def _output(product: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return product.to(dtype) if scale is None else (product.float() * scale).to(dtype)
