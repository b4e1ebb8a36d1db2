"""Time the NVFP4 packer of compressed-tensors on the CPU.

    python benchmarks/peers/encode_compressed_tensors.py --input FILE.safetensors --repeat 5

Every 2-D BF16 tensor goes through the library's own functions: ``generate_gparam`` (global scale),
``calculate_qparams`` (block scales) and ``NVFP4PackedCompressor.compress`` (codes and packing). The library leaves the
minima and maxima to an observer; here they are plain ``aminmax`` calls, cast to float32. Reading the file is not
timed. One JSON line goes to stdout.
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
    import compressed_tensors
    from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

BLOCK = 16


def encode(weight: torch.Tensor, scheme: QuantizationScheme) -> dict[str, torch.Tensor]:
    """Return ``weight_packed``, ``weight_scale`` and ``weight_global_scale`` of one matrix."""
    low, high = torch.aminmax(weight.view(weight.shape[0], -1, BLOCK), dim=-1)
    low, high = low.float(), high.float()
    global_scale = generate_gparam(low.min(), high.max())
    scale, _ = calculate_qparams(low, high, scheme.weights, global_scale)
    state = {"weight": weight, "weight_scale": scale, "weight_global_scale": global_scale}
    packed: dict[str, torch.Tensor] = NVFP4PackedCompressor.compress(state, scheme)
    return packed


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="safetensors file with 2-D BF16 tensors")
    parser.add_argument("--repeat", type=int, default=3, help="timed passes over all tensors")
    parser.add_argument("--save", type=Path, help="write weight_packed, weight_scale and weight_global_scale here")
    args = parser.parse_args()

    weights = load_file(args.input)
    for name, weight in weights.items():
        if weight.ndim != 2 or weight.dtype != torch.bfloat16:
            parser.error(f"{name}: expected a 2-D BF16 tensor, got {weight.dtype} {tuple(weight.shape)}")
    source_bytes = sum(weight.nbytes for weight in weights.values())
    scheme = preset_name_to_scheme("NVFP4", ["Linear"])

    seconds: list[float] = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        for weight in weights.values():
            encode(weight, scheme)
        seconds.append(time.perf_counter() - start)

    if args.save is not None:
        result: dict[str, torch.Tensor] = {}
        for name, weight in weights.items():
            module = name.removesuffix(".weight")
            result |= {f"{module}.{key}": value for key, value in encode(weight, scheme).items()}
        save_file(result, args.save)

    print(
        json.dumps(
            {
                "peer": "compressed-tensors",
                "version": compressed_tensors.__version__,
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
