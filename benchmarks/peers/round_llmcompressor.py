"""Round the routed experts of a checkpoint to NVFP4 with llm-compressor, on the CPU.

    python benchmarks/peers/round_llmcompressor.py --src MODEL_DIR --dst OUT_DIR --tokens IDS.jsonl --algorithm gptq

IDS.jsonl holds one ``{"input_ids": [...]}`` a line. This is the ordinary route: ``oneshot`` with its sequential
pipeline, ``save_pretrained`` in the format ``nvfp4-pack-quantized``. Fused experts become linear modules by the
library's own ``linearize_moe`` (its ``load_quantizable_moe`` imports torchvision). The model is computed in float32,
with eager attention. Algorithms:

- rtn: ``QuantizationModifier``, block scales from minima and maxima
- mse, expanded_mse: the same with the weight observer ``memoryless_mse``, ``nvfp4_expanded_mse``
- gptq: ``GPTQModifier`` with its defaults: every expert is calibrated on all tokens
- gptq_routed: the same, every expert on the tokens routed to it (``moe_calibrate_all_experts=False``)
- gptq_tuned: gptq_routed with the observer ``nvfp4_expanded_mse`` and our damping of 0.1 in place of 0.01

The scheme is ``NVFP4`` for gptq, else ``NVFP4A16``, whose weights are the same and need no data.
One JSON line goes to stdout; whatever the library prints goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modeling.moe.linearize import linearize_moe
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM

EXPERTS = r"re:.*\.mlp\.experts\.\d+\.(gate|up|down)_proj$"
OBSERVERS = {"mse": "memoryless_mse", "expanded_mse": "nvfp4_expanded_mse", "gptq_tuned": "nvfp4_expanded_mse"}
ALGORITHMS = ("rtn", "mse", "expanded_mse", "gptq", "gptq_routed", "gptq_tuned")


def scheme_of(algorithm: str) -> QuantizationScheme:
    scheme = preset_name_to_scheme("NVFP4" if algorithm.startswith("gptq") else "NVFP4A16", [EXPERTS])
    if algorithm in OBSERVERS:
        scheme.weights.observer = OBSERVERS[algorithm]
    return scheme


def run(src: Path, dst: Path, tokens: Path, algorithm: str) -> dict[str, Any]:
    rows = [torch.tensor(json.loads(line)["input_ids"]) for line in tokens.read_text().splitlines()]
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in rows]
    model = AutoModelForCausalLM.from_pretrained(src, dtype=torch.float32, attn_implementation="eager").eval()
    linearize_moe(model)
    calibrated = algorithm.startswith("gptq")
    groups = {"experts": scheme_of(algorithm)}
    began = time.monotonic()
    if calibrated:
        oneshot(
            model=model,
            # a list has what a map-style dataset has
            dataset=DataLoader(cast("Dataset[dict[str, torch.Tensor]]", batches), batch_size=1),
            recipe=GPTQModifier(config_groups=groups, dampening_frac=0.1 if algorithm == "gptq_tuned" else 0.01),
            moe_calibrate_all_experts=algorithm == "gptq",
            pipeline="sequential",
        )
    else:
        oneshot(model=model, recipe=QuantizationModifier(config_groups=groups))
    model.save_pretrained(dst, save_compressed=True)
    return {
        "peer": "llm-compressor",
        "version": version("llmcompressor"),
        "compressed_tensors": version("compressed-tensors"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "algorithm": algorithm,
        "documents": len(rows) if calibrated else 0,
        "tokens": sum(len(ids) for ids in rows) if calibrated else 0,
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
