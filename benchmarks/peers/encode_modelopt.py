"""Time ModelOpt's NVFP4 packer on the CPU, and optionally keep its result for a byte comparison.

    python benchmarks/peers/encode_modelopt.py --input FILE.safetensors --repeat 5 [--save OUT.safetensors]

Every 2-D BF16 tensor goes through ``NVFP4QTensor.quantize``: amax, weight_scale_2, block scales, codes, packing.
Reading the file is not timed. One JSON line goes to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

with contextlib.redirect_stdout(sys.stderr):
    import modelopt
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

BLOCK = 16


def encode(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return packed codes, E4M3 block scales and weight_scale_2 of one matrix."""
    quantized, scale, scale_2 = NVFP4QTensor.quantize(weight, BLOCK)
    return quantized._quantized_data, scale, scale_2


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="safetensors file with 2-D BF16 tensors")
    parser.add_argument("--repeat", type=int, default=3, help="timed passes over all tensors")
    parser.add_argument("--save", type=Path, help="write weight, weight_scale and weight_scale_2 of each tensor here")
    args = parser.parse_args()

    weights = load_file(args.input)
    for name, weight in weights.items():
        if weight.ndim != 2 or weight.dtype != torch.bfloat16:
            parser.error(f"{name}: expected a 2-D BF16 tensor, got {weight.dtype} {tuple(weight.shape)}")
    source_bytes = sum(weight.nbytes for weight in weights.values())

    seconds: list[float] = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        for weight in weights.values():
            encode(weight)
        seconds.append(time.perf_counter() - start)

    if args.save is not None:
        result: dict[str, torch.Tensor] = {}
        for name, weight in weights.items():
            module = name.removesuffix(".weight")
            packed, scale, scale_2 = encode(weight)
            result |= {f"{module}.weight": packed, f"{module}.weight_scale": scale, f"{module}.weight_scale_2": scale_2}
        save_file(result, args.save)

    print(
        json.dumps(
            {
                "peer": "modelopt",
                "version": modelopt.__version__,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "tensors": len(weights),
                "bytes": source_bytes,
                "seconds": [round(s, 4) for s in seconds],
                "gb_per_s_median": round(source_bytes / statistics.median(seconds) / 1e9, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
