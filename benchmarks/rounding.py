"""What each rounding of the routed experts costs the tiny model, at equal bytes: max, sweep, gptq.

    python benchmarks/rounding.py [--windows 16] [--tasks 0] [--keep FOLDER]

W4A16 is the decoded checkpoint in float32; W4A4 is our runtime's a4-sim with input_scale 1. Windows and measures are
those of tiny_accuracy.py. gptq rounds on all of calibration.jsonl, at most 512 tokens a row. --keep: reuse checkpoints
that an earlier run left in FOLDER (FOLDER/max, FOLDER/sweep, FOLDER/gptq).
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from runtime_accuracy import load
from table import record, show
from tiny_accuracy import TINY, accuracies, load_decoded, log_probabilities, perplexity, windows
from transformers import AutoTokenizer

import halfbyte.runtime as runtime
from halfbyte.api import quantize

ROUNDINGS = ("max", "sweep", "gptq")


def made(folder: Path, rounding: Any) -> tuple[Path, float]:
    """The checkpoint, and how long it took to make; 0 if it was there."""
    if (folder / rounding / "config.json").exists():
        return folder / rounding, 0.0
    data = [str(TINY / "calibration.jsonl")] if rounding == "gptq" else []
    began = time.monotonic()
    quantize(TINY, folder / rounding, rounding=rounding, calibrate=data, calibration_length=512)
    return folder / rounding, time.monotonic() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--windows", type=int, default=16)
    options.add_argument("--tasks", type=int, default=0, help="items of each short task")
    options.add_argument("--keep", type=Path)
    options.add_argument("--only", choices=ROUNDINGS, help="one rounding alone")
    chosen = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)[: chosen.windows]
    plain = load(TINY)
    base = log_probabilities(plain, tokens)
    rows: list[dict[str, Any]] = [{"rounding": "BF16", "activations": "a16", "perplexity": perplexity(base, tokens)}]

    def measure(rounding: str, activations: str, model: Any, seconds: float) -> None:
        logp = log_probabilities(model, tokens)
        divergence = (base.exp() * (base - logp)).sum(-1).mean(-1)
        rows.append(
            {
                "rounding": rounding,
                "activations": activations,
                "perplexity": perplexity(logp, tokens),
                "kl": divergence.mean().item(),
                "kl_by_window": divergence.tolist(),
                "top1_agreement": (base.argmax(-1) == logp.argmax(-1)).float().mean().item(),
                "seconds": seconds,
                "accuracy": accuracies(model, tokenizer, chosen.tasks, 0) if chosen.tasks else {},
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "kl_by_window"}, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        for rounding in (chosen.only,) if chosen.only else ROUNDINGS:
            out, seconds = made(folder, rounding)
            load_decoded(plain, out)
            measure(rounding, "a16", plain, seconds)
            ours = load(out)
            runtime.use(ours, backend="dequant", activations="a4-sim")
            measure(rounding, "a4-sim", ours, seconds)
            del ours
    columns = ["rounding", "activations", "perplexity", "KL to BF16", "top-1", "seconds to make"]
    cells = [
        [r["rounding"], r["activations"], f"{r['perplexity']:.3f}"]
        + ([f"{r['kl']:.5f}", f"{r['top1_agreement']:.1%}", f"{r['seconds']:.0f}"] if "kl" in r else ["0", "100%", ""])
        for r in rows
    ]
    show(f"tiny-glm, routed experts in NVFP4, {len(tokens)} windows of 1,024 tokens", columns, cells)
    record("rounding", {"windows": len(tokens), "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
