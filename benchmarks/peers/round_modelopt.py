"""Round the routed experts of a checkpoint to NVFP4 with one of ModelOpt's own algorithms, on the CPU.

    python benchmarks/peers/round_modelopt.py --src MODEL_DIR --dst OUT_DIR --tokens IDS.jsonl --algorithm gptq

IDS.jsonl holds one ``{"input_ids": [...]}`` a line; max and mse, whose weights need no data, see the first alone.
Configurations are ModelOpt's: ``NVFP4_EXPERTS_ONLY_CFG`` (max); the same with static weight scales and ``algorithm`` as
in the recipes ``nvfp4_experts_only_mse`` (mse with ``fp8_scale_sweep``), ``nvfp4_w4a4_weight_local_hessian`` and
``nvfp4_default-kv_none-gptq`` (layer by layer). The result is written by ``export_hf_checkpoint``. Departures from the
ordinary route, all in ModelOpt's favour:

- The model is computed in float32; gptq keeps its result in the weights' dtype until export.
- gptq looks for quantized linear layers and skips a model that has none, fused experts being none. So the experts are
  unfused into ``nn.Linear`` first; the logits are compared before anything is quantized.
- NVFP4 fake quantization of ModelOpt 0.47 exists as CUDA and Triton kernels only. `plain_kernels` puts functions of
  the same arithmetic in their place (``kernels/quantization/common/nvfp4_quant.py``), checked against ModelOpt's own
  packer on every run. The algorithms themselves are ModelOpt's code, unchanged.

gptq_tuned has our damping of 0.1 in place of 0.01. Its scales stay those of the largest weight: it sets no others.
One JSON line goes to stdout; whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import modelopt
import modelopt.torch.kernels.quantization.gemm as kernels
import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization import tensor_quant
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from torch import Tensor, nn

BLOCK = 16
E4M3_MAX = 448.0

ALGORITHMS: dict[str, Any] = {
    "max": "max",
    "mse": {"method": "mse", "fp8_scale_sweep": True},
    "local_hessian": {"method": "local_hessian", "fp8_scale_sweep": True},
    "gptq": {"method": "gptq", "layerwise": {"enable": True}},
    "gptq_tuned": {"method": "gptq", "perc_damp": 0.1, "layerwise": {"enable": True}},
}


def rounded(x: Tensor, scale: Tensor) -> Tensor:
    """Blocks x, [..., 16] float32, to the nearest multiple of E2M1 by their scales, [..., 1]; zero where that is 0.

    E2M1 counts in halves below 2, in ones below 4, in twos up to 6; a tie goes to the even code, as `round` does it.
    """
    safe = torch.where(scale == 0, 1.0, scale)
    magnitude = x.abs() / safe
    step = torch.where(magnitude < 2, 0.5, 1.0) * torch.where(magnitude < 4, 1.0, 2.0)
    values = (magnitude / step).round_().mul_(step).clamp_(max=6) * scale
    return torch.copysign(values, x)


def static_fake_quant(
    x: Tensor,
    amax: Tensor,
    global_amax: Tensor | None = None,
    quantize_block_scales: bool = True,
    fp8_max_for_normalization: float = E4M3_MAX,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """In place of ``fp4_kernel.static_blockwise_fp4_fake_quant``; signature and scales as there."""
    scale = amax.float() / 6.0
    if quantize_block_scales:
        largest = amax.float().amax() if global_amax is None else global_amax.float()
        scale = tensor_quant.scaled_e4m3_impl(scale, largest * (E4M3_MAX / fp8_max_for_normalization) / 6.0)
    blocks = x.float().reshape(amax.numel(), -1)
    return rounded(blocks, scale.reshape(-1, 1)).reshape(x.shape).to(out_dtype or x.dtype)


def dynamic_fake_quant(x: Tensor, block_size: int, amax: Tensor, *_bits: int) -> Tensor:
    """In place of ``fp4_kernel_hopper.fp4_fake_quant_block``, which is what E2M1 blocks with E4M3 scales end in."""
    global_scale = amax.float().amax() / (6.0 * E4M3_MAX)
    global_scale = torch.where(global_scale > 0, global_scale, 1e-12)
    blocks = x.float().reshape(-1, block_size)
    scale = blocks.abs().amax(-1, keepdim=True) / (6.0 * global_scale)
    scale = scale.clamp(max=E4M3_MAX).to(torch.float8_e4m3fn).float() * global_scale
    return rounded(blocks, torch.where(scale >= 1e-5, scale, 1.0)).reshape(x.shape).to(x.dtype)


def plain_kernels() -> None:
    """Put the two functions where ModelOpt looks for its kernels. Raises if they differ from ModelOpt's packer."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    packed, scale, scale_2 = NVFP4QTensor.quantize(weight, BLOCK)
    wanted = packed.dequantize(torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: BLOCK})
    amax = weight.abs().amax()
    static = static_fake_quant(weight, weight.view(-1, BLOCK).abs().amax(-1), amax)
    for name, found in (("static", static), ("dynamic", dynamic_fake_quant(weight, BLOCK, amax))):
        difference = (found - wanted).abs().max().item()
        if difference > 1e-6:
            raise SystemExit(f"{name} fake quantization differs from ModelOpt's packer by {difference}")
    kernels.IS_AVAILABLE = True
    kernels.static_blockwise_fp4_fake_quant = static_fake_quant
    tensor_quant.dynamic_block_quantize_op = dynamic_fake_quant


class Expert(nn.Module):
    def __init__(self, gate_up: Tensor, down: Tensor, act: Any) -> None:
        super().__init__()
        gate, up = gate_up.chunk(2)
        self.gate_proj, self.up_proj, self.down_proj, self.act_fn = linear(gate), linear(up), linear(down), act

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return result


class UnfusedExperts(nn.ModuleList):
    """The forward pass of transformers' fused experts over `Expert` modules."""

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        result = torch.zeros_like(hidden)
        for number, expert in enumerate(self):
            token, place = torch.where(top_k_index == number)
            if len(token):
                result.index_add_(0, token, expert(hidden[token]) * top_k_weights[token, place, None])
        return result


def linear(weight: Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return module


def unfuse(model: nn.Module, ids: Tensor) -> None:
    """Replace fused experts by `UnfusedExperts`. Raises if that changes the logits on `ids`, [1, tokens]."""
    before = model(input_ids=ids, use_cache=False).logits
    for layer in model.get_submodule("model.layers").children():
        mlp = layer.get_submodule("mlp")
        fused = getattr(mlp, "experts", None)
        if fused is not None:
            parts = zip(fused.gate_up_proj.data, fused.down_proj.data, strict=True)
            mlp.experts = UnfusedExperts(Expert(gate_up, down, fused.act_fn) for gate_up, down in parts)
    difference = (model(input_ids=ids, use_cache=False).logits - before).abs().max().item()
    if difference > 1e-3:
        raise SystemExit(f"unfused experts change the logits by {difference}")


def config_of(algorithm: str) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(mtq.NVFP4_EXPERTS_ONLY_CFG)
    config["algorithm"] = ALGORITHMS[algorithm]
    if algorithm != "max":
        for entry in config["quant_cfg"]:
            if entry["quantizer_name"].endswith("weight_quantizer"):
                entry["cfg"]["block_sizes"]["type"] = "static"
    return config


@torch.no_grad()
def run(src: Path, dst: Path, tokens: Path, algorithm: str) -> dict[str, Any]:
    plain_kernels()
    batches = [torch.tensor([json.loads(line)["input_ids"]]) for line in tokens.read_text().splitlines()]
    if algorithm in ("max", "mse"):  # no weight depends on data, input scales alone do
        batches = batches[:1]
    # Eager: sdpa is wrong for ``glm_moe_dsa`` in transformers 5.14.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        src, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    if algorithm.startswith("gptq"):
        unfuse(model, batches[0])

    def forward_loop(inner: nn.Module) -> None:
        for ids in batches:
            inner(input_ids=ids, use_cache=False)

    began = time.monotonic()
    model = mtq.quantize(model, config_of(algorithm), forward_loop)
    export_hf_checkpoint(model, export_dir=dst)
    return {
        "peer": "ModelOpt",
        "version": modelopt.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "algorithm": algorithm,
        "config": ALGORITHMS[algorithm],
        "documents": len(batches),
        "tokens": sum(ids.numel() for ids in batches),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", type=Path, required=True, help="source checkpoint directory")
    parser.add_argument("--dst", type=Path, required=True, help="output directory")
    parser.add_argument("--tokens", type=Path, required=True, help='JSON lines of {"input_ids": [...]}')
    parser.add_argument("--algorithm", choices=ALGORITHMS, required=True)
    args = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        result = run(args.src, args.dst, args.tokens, args.algorithm)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
