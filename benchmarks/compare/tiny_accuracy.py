"""What four bits cost on the tiny model: perplexity, KL and task accuracy, before and after `halfbyte quantize`.

    python -m benchmarks.compare.tiny_accuracy [--tasks 60]

The quantized checkpoint is decoded by our codec and computed in float32 with transformers (eager attention: its sdpa
path is wrong for this model), so the difference to BF16 is the quantization of the weights and nothing else.
Windows: window i is tokens 4096 i to 4096 i + 1023 of heldout.txt, i = 0 to 15; KL(BF16 || quantized) in nats over all
positions, perplexity over the 1,023 predictions of each window.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.compare.scorer import run_task
from benchmarks.table import ROOT, record, show
from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.reference import Encoded

TINY = ROOT / "examples/tiny-glm"
"""The first lab animal, and the texts and tasks of both."""
QWEN = ROOT / "examples/tiny-qwen"
ANIMALS = {folder.name: folder for folder in (TINY, QWEN)}
LONG = "long_context"


def windows(tokenizer: Any) -> torch.Tensor:
    ids = tokenizer((TINY / "heldout.txt").read_text("utf-8"), add_special_tokens=False)["input_ids"]
    return torch.tensor([ids[4096 * i : 4096 * i + 1024] for i in range(16)])


@torch.no_grad()
def log_probabilities(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return torch.stack([model(row[None], use_cache=False).logits[0].float().log_softmax(-1) for row in tokens])


def perplexity(logp: torch.Tensor, tokens: torch.Tensor) -> float:
    return math.exp(-logp[:, :-1].gather(2, tokens[:, 1:, None]).mean().item())


def load_decoded(model: Any, folder: Path) -> None:
    """Replace the routed experts of `model` by the decoded ones of a quantized checkpoint."""
    with Checkpoint.open(folder) as checkpoint:

        def read(name: str, dtype: Any) -> np.ndarray:
            tensor = checkpoint.tensors[name]
            buffer = bytearray(tensor.bytes)
            checkpoint.read_into(tensor, memoryview(buffer))
            return np.frombuffer(buffer, dtype).reshape(tensor.shape)

        def weight(module: str) -> torch.Tensor:
            codes, scales = (read(f"{module}.{part}", np.uint8) for part in ("weight", "weight_scale"))
            scale_2 = np.float32(read(f"{module}.weight_scale_2", np.float32).item())
            return torch.from_numpy(decode(Encoded(codes, scales, scale_2)))

        for number, layer in enumerate(model.model.layers):
            if not hasattr(layer.mlp, "experts"):
                continue
            for expert in range(len(layer.mlp.experts.gate_up_proj)):
                module = f"model.layers.{number}.mlp.experts.{expert}"
                gate_up = torch.cat([weight(f"{module}.gate_proj"), weight(f"{module}.up_proj")])
                layer.mlp.experts.gate_up_proj.data[expert] = gate_up
                layer.mlp.experts.down_proj.data[expert] = weight(f"{module}.down_proj")


def accuracies(model: Any, tokenizer: Any, items: int, long_items: int) -> dict[str, float]:
    scores = {}
    for path in sorted((TINY / "tasks").glob("*.jsonl")):
        count = long_items if path.stem == LONG else items
        lines = path.read_text("utf-8").splitlines()[:count]
        if lines:
            began = time.monotonic()
            batch = 4 if path.stem == LONG else 60
            scores[path.stem], _ = run_task(model, tokenizer, [json.loads(line) for line in lines], batch)
            seconds = time.monotonic() - began
            print(f"{path.stem}: {scores[path.stem]:.4f} of {len(lines)} ({seconds:.0f} s)", file=sys.stderr)
    return scores


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tasks", type=int, default=60, help="items of each short task; 0 leaves tasks out")
    options.add_argument("--long", type=int, default=12, help="items of long_context")
    chosen = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)
    results: dict[str, dict[str, Any]] = {}
    base = None
    for variant in ("BF16", "max", "sweep"):
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager").eval()
        if variant != "BF16":
            with tempfile.TemporaryDirectory() as folder:
                quantize(TINY, Path(folder) / "out", rounding=variant)
                load_decoded(model, Path(folder) / "out")
        logp = log_probabilities(model, tokens)
        base = logp if base is None else base
        kl = (base.exp() * (base - logp)).sum(-1).mean().item()
        agreement = (base.argmax(-1) == logp.argmax(-1)).float().mean().item()
        results[variant] = {"perplexity": perplexity(logp, tokens), "kl": kl, "top1_agreement": agreement}
        results[variant]["accuracy"] = accuracies(model, tokenizer, chosen.tasks, chosen.long if chosen.tasks else 0)
        print(variant, results[variant], file=sys.stderr)
    names = list(results["BF16"]["accuracy"])
    rows = [
        [variant, f"{r['perplexity']:.3f}", f"{r['kl']:.5f}", f"{r['top1_agreement']:.1%}"]
        + [f"{r['accuracy'][name]:.1%}" for name in names]
        for variant, r in results.items()
    ]
    show("tiny-glm, routed experts in NVFP4, weights only", ["rounding", "perplexity", "KL", "top-1", *names], rows)
    record("tiny_accuracy", {"items": chosen.tasks, "long_items": chosen.long, "results": results})


if __name__ == "__main__":
    main()
