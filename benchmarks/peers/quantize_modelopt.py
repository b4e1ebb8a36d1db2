"""Quantize a whole MoE checkpoint directory with ModelOpt, routed experts only, NVFP4 W4A4, on the CPU.

    python benchmarks/peers/quantize_modelopt.py --src MODEL_DIR --dst OUT_DIR

This is the ordinary library route: load with transformers, ``mtq.quantize`` with a short forward loop, then
``export_hf_checkpoint``. One JSON line goes to stdout; whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelopt
import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint


def calibration_batches(
    src: Path, calibration: Path | None, rows: int, max_tokens: int, vocab_size: int
) -> Iterator[torch.Tensor]:
    """Yield one [1, tokens] batch of token ids per row.

    Rows are taken evenly over a JSON-lines file with ``messages`` (and ``tools``) or ``text``. Without a file the
    ids are random, from a fixed seed: enough for every input quantizer to see something, useless for quality.
    """
    if calibration is None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(rows):
            yield torch.randint(0, vocab_size, (1, max_tokens), generator=generator)
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(src)
    lines = calibration.read_text(encoding="utf-8").splitlines()
    for line in lines[:: max(1, len(lines) // rows)][:rows]:
        row = json.loads(line)
        text = row.get("text")
        if text is None:
            text = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
        yield tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[:, :max_tokens]


def load_model(src: Path) -> transformers.PreTrainedModel:
    """Load the checkpoint in BF16 with eager attention (sdpa is wrong for ``glm_moe_dsa`` in transformers 5.14).

    Towers that a text model stands beside are loaded with it.
    """
    kind = transformers.AutoModelForCausalLM
    if "vision_config" in json.loads((src / "config.json").read_text(encoding="utf-8")):
        kind = transformers.AutoModelForImageTextToText
    return kind.from_pretrained(src, dtype=torch.bfloat16, attn_implementation="eager").eval()


def quantize(model: torch.nn.Module, batches: Iterator[torch.Tensor]) -> torch.nn.Module:
    """Calibrate and quantize the routed experts with ModelOpt's own ``NVFP4_EXPERTS_ONLY_CFG``."""

    def forward_loop(inner: torch.nn.Module) -> None:
        with torch.no_grad():
            for ids in batches:
                inner(input_ids=ids, use_cache=False)

    quantized: torch.nn.Module = mtq.quantize(model, mtq.NVFP4_EXPERTS_ONLY_CFG, forward_loop)
    return quantized


def run(src: Path, dst: Path, calibration: Path | None, rows: int, max_tokens: int) -> dict[str, Any]:
    """Load, quantize and export; return the timings, the peak memory and the versions."""
    start = time.perf_counter()
    model = load_model(src)
    loaded = time.perf_counter()
    model = quantize(
        model, calibration_batches(src, calibration, rows, max_tokens, model.config.get_text_config().vocab_size)
    )
    quantized = time.perf_counter()
    export_hf_checkpoint(model, export_dir=dst)
    end = time.perf_counter()
    return {
        "peer": "modelopt",
        "version": modelopt.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "src_bytes": sum(f.stat().st_size for f in src.glob("*.safetensors")),
        "dst_bytes": sum(f.stat().st_size for f in dst.glob("*.safetensors")),
        "calibration_rows": rows,
        "calibration_max_tokens": max_tokens,
        "seconds_load": round(loaded - start, 3),
        "seconds_quantize": round(quantized - loaded, 3),
        "seconds_export": round(end - quantized, 3),
        "seconds": round(end - start, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", type=Path, required=True, help="source checkpoint directory")
    parser.add_argument("--dst", type=Path, required=True, help="output directory")
    parser.add_argument("--calibration", type=Path, help="JSON lines (default: SRC/calibration.jsonl, else random ids)")
    parser.add_argument("--rows", type=int, default=8, help="calibration rows")
    parser.add_argument("--max-tokens", type=int, default=256, help="tokens kept of each calibration row")
    args = parser.parse_args()
    calibration = args.calibration
    if calibration is None and (args.src / "calibration.jsonl").is_file():
        calibration = args.src / "calibration.jsonl"
    with contextlib.redirect_stdout(sys.stderr):
        result = run(args.src, args.dst, calibration, args.rows, args.max_tokens)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
