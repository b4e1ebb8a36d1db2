"""What ModelOpt's `auto_quantize` puts into four bits: NVFP4 weights or 16 bits, layer by layer, under effective bits.

    python -m benchmarks.peers.choose_modelopt --model FOLDER --tokens IDS.json --bits 8 10 --method gradient

IDS.json is a list of windows of token ids: for calibration and for the scores alike. `--keep` are patterns of modules
that are no candidates. One JSON line goes to stdout: for each budget the names of the quantized modules.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers.round_modelopt import plain_kernels

with contextlib.redirect_stdout(sys.stderr):
    import modelopt.torch.quantization as mtq


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--bits", type=float, nargs="+", required=True, help="of a weight of the candidates")
    parser.add_argument("--method", choices=("gradient", "kl_div"), default="gradient")
    parser.add_argument("--keep", nargs="*", default=[])
    asked = parser.parse_args()
    plain_kernels()
    windows = [torch.tensor([ids]) for ids in json.loads(asked.tokens.read_text())]
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        chosen = [choose(asked, windows, bits, Path(folder) / "scores.pth") for bits in asked.bits]
    print(json.dumps({"chosen": chosen, "seconds": time.perf_counter() - began}))


def choose(asked: argparse.Namespace, windows: list[torch.Tensor], bits: float, scores: Path) -> list[str]:
    """Quantized modules under a budget. scores: kept there from one budget to the next."""
    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32, attn_implementation="eager")
    gradient: dict[str, Any] = {"loss_func": lambda output, batch: output.loss}

    def forward(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        output = model(input_ids=batch, labels=batch, use_cache=False)
        return output if asked.method == "gradient" else output.logits

    _, state = mtq.auto_quantize(
        model,
        constraints={"effective_bits": bits},
        quantization_formats=[mtq.W4A16_NVFP4_CFG],
        data_loader=windows,
        forward_step=forward,
        num_calib_steps=len(windows),
        num_score_steps=len(windows),
        disabled_layers=asked.keep,
        method=asked.method,
        checkpoint=str(scores),
        **(gradient if asked.method == "gradient" else {}),
    )
    found, stats = state["best"]["recipe"], state["candidate_stats"]
    return sorted(module for name in found if found[name].num_bits < 16 for module in stats[name]["module_names"])


if __name__ == "__main__":
    main()
