"""Does the runtime compute what it says? tiny-glm: the decoded model against ours, on every CPU back end and mode.

    python -m benchmarks.chat.runtime_accuracy [--windows 16]

"decoded" is transformers in float32 with the experts decoded by our codec (W4A16) and is the yardstick for a16; the
figures to meet for W4A4 are those of the independent measurement in which input_scale is 1 (KL 0.15643, perplexity
82.534). Windows and measures are those of tiny_accuracy.py.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import halfbyte.runtime as runtime
from benchmarks.compare.tiny_accuracy import TINY, load_decoded, log_probabilities, perplexity, windows
from benchmarks.table import record, show
from halfbyte.api import quantize


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--windows", type=int, default=16)
    chosen = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)[: chosen.windows]
    rows: list[dict[str, Any]] = []
    base = torch.empty(0)

    def measure(name: str, model: Any) -> None:
        nonlocal base
        began = time.monotonic()
        logp = log_probabilities(model, tokens)
        base = base if base.numel() else logp
        kl = (base.exp() * (base - logp)).sum(-1).mean().item()
        agreement = (base.argmax(-1) == logp.argmax(-1)).float().mean().item()
        seconds = time.monotonic() - began
        figures = {"perplexity": perplexity(logp, tokens), "kl": kl, "top1_agreement": agreement, "seconds": seconds}
        rows.append({"model": name} | figures)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "quantized"
        quantize(TINY, out, rounding="max", input_scale=1.0)
        plain = load(TINY)
        measure("BF16 checkpoint", plain)
        load_decoded(plain, out)
        measure("decoded (W4A16)", plain)
        del plain
        ours = load(out)
        for activations in ("a16", "a4-sim"):
            for backend in ("dequant", "reference"):
                runtime.use(ours, backend=backend, activations=activations)
                measure(f"ours, {backend}, {activations}", ours)
    columns = ["model", "perplexity", "KL to BF16", "top-1", "seconds"]
    cells = [
        [r["model"], f"{r['perplexity']:.4f}", f"{r['kl']:.5f}", f"{r['top1_agreement']:.1%}", f"{r['seconds']:.1f}"]
        for r in rows
    ]
    show(f"tiny-glm, {len(tokens)} windows of 1,024 tokens, float32", columns, cells)
    record("runtime_accuracy", {"windows": len(tokens), "rows": rows})


if __name__ == "__main__":
    main()
