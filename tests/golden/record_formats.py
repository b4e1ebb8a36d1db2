"""Record golden vectors of the formats that are read, from their own libraries: `formats_vectors.npz` beside this file.

    pip install compressed-tensors==0.20.0 transformers torch   # an environment of its own
    python tests/golden/record_formats.py

For a case NAME: `NAME.<part>` are the stored tensors' bytes as the library compressed them, `NAME.weight.float32` is
what the library decompresses them to (in the dtype that it computes in, widened). `__meta__`: versions and each part's
dtype and shape.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

SAFETENSORS = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8",
               torch.int32: "I32", torch.int64: "I64"}  # fmt: skip
ROWS, COLUMNS = 24, 128


def compressed(
    form: str, weights: dict[str, Any], parts: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The parts as the library stores them, and what it reads back."""
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    compressor = BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(dict(parts), scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"]


def main() -> None:
    torch.manual_seed(20261126)
    weight = torch.randn(ROWS, COLUMNS)
    cases: dict[str, tuple[dict[str, torch.Tensor], torch.Tensor]] = {}

    def group(size: int) -> torch.Tensor:
        return weight.view(ROWS, -1, size).abs().amax(-1)

    four = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    scale = (group(32) / 7.5).bfloat16()
    cases["int4"] = compressed("pack-quantized", four, {"weight": weight.bfloat16(), "weight_scale": scale})
    low, high = weight.view(ROWS, -1, 64).aminmax(dim=-1)
    scale = ((high - low) / 15).bfloat16()
    point = (-8 - low / scale.float()).round().clamp(-8, 7).to(torch.int8)
    parts = {"weight": weight.bfloat16(), "weight_scale": scale, "weight_zero_point": point}
    cases["int4-g64-zp"] = compressed("pack-quantized", four | {"group_size": 64, "symmetric": False}, parts)
    divisor = torch.tensor([448 * 6 / weight.abs().max()])
    scale = (group(16) / 6 * divisor).to(torch.float8_e4m3fn).float()
    parts = {"weight": weight, "weight_scale": scale, "weight_global_scale": divisor}
    fp4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    cases["nvfp4-ct"] = compressed("nvfp4-pack-quantized", fp4, parts)
    scale = 2.0 ** torch.floor(torch.log2(group(32)) - 2)
    parts = {"weight": weight, "weight_scale": scale}
    cases["mxfp4"] = compressed("mxfp4-pack-quantized", fp4 | {"strategy": "group", "group_size": 32}, parts)
    eight = {"num_bits": 8, "type": "float", "strategy": "channel"}
    scale = (weight.abs().amax(-1, keepdim=True) / 448).bfloat16()
    cases["fp8"] = compressed("float-quantized", eight, {"weight": weight.bfloat16(), "weight_scale": scale})
    codes = (torch.randn(256, 256) * 100).to(torch.float8_e4m3fn)
    tiles = torch.rand(2, 2) * 0.01
    stored = {"weight": codes, "weight_scale_inv": tiles}
    cases["fp8-block"] = stored, Fp8Dequantize(None)._dequantize_one(codes, tiles, torch.float32)
    blocks = torch.randint(0, 256, (1, ROWS, COLUMNS // 32, 16), dtype=torch.uint8)
    exponents = torch.randint(100, 140, (1, ROWS, COLUMNS // 32), dtype=torch.uint8)
    stored = {"weight_packed": blocks.view(ROWS, -1), "weight_scale": exponents.view(ROWS, -1)}
    cases["mxfp4 of gpt-oss"] = stored, convert_moe_packed_tensors(blocks, exponents, dtype=torch.float32)[0].mT
    wide = torch.randn(200, 256)
    scale = torch.nn.functional.max_pool2d(wide.abs()[None], 128, ceil_mode=True)[0] / 448
    block = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}
    parts = {"weight": wide.bfloat16(), "weight_scale": scale.bfloat16()}
    cases["fp8-block of compressed-tensors"] = compressed("float-quantized", block, parts)

    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name, (stored, read) in cases.items():
        for part, tensor in stored.items():
            tensor = tensor.detach().contiguous()
            arrays[f"{name}.{part}"] = tensor.reshape(-1).view(torch.uint8).numpy()
            about[f"{name}.{part}"] = [SAFETENSORS[tensor.dtype], list(tensor.shape)]
        arrays[f"{name}.weight.float32"] = read.detach().float().contiguous().numpy()
        about[f"{name}.read"] = str(read.dtype)
    versions = {lib: importlib.metadata.version(lib) for lib in ("compressed-tensors", "transformers", "torch")}
    meta = json.dumps({"versions": versions, "parts": about}).encode()
    arrays["__meta__"] = np.frombuffer(meta, np.uint8)
    np.savez_compressed(Path(__file__).parent / "formats_vectors.npz", **arrays)
    print(versions, *cases, sep="\n")


if __name__ == "__main__":
    main()
