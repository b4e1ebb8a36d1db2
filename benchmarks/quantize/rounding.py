"""What each rounding of the routed experts costs the tiny model, at equal bytes: max, sweep, weighted-sweep, gptq.

    python -m benchmarks.quantize.rounding [--model tiny-glm|tiny-qwen] [--windows 16] [--slices] [--tasks N] [--keep D]

W4A16 is the decoded checkpoint in float32; W4A4 is our runtime's a4-sim with input_scale 1. Windows and measures are
those of tiny_accuracy.py. gptq rounds on all of calibration.jsonl. --keep: reuse checkpoints
that an earlier run left in FOLDER (FOLDER/max, FOLDER/sweep, FOLDER/gptq). --slices: KL also on twelve windows of 1,024
tokens of Korean prose and on three of 4,096 tokens of the held-out text, beyond what the indexer selects.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

import halfbyte.runtime as runtime
from benchmarks.chat.runtime_accuracy import load
from benchmarks.compare.tiny_accuracy import (
    ANIMALS,
    TINY,
    accuracies,
    load_decoded,
    log_probabilities,
    perplexity,
    windows,
)
from benchmarks.table import record, show
from halfbyte.api import quantize

ROUNDINGS = ("max", "sweep", "weighted-sweep", "gptq")


def slices(tokenizer: Any) -> dict[str, torch.Tensor]:
    """Text apart from the sixteen windows, by name: int64 [windows, tokens]."""

    def cut(path: str, length: int, count: int) -> torch.Tensor:
        ids = tokenizer((TINY / path).read_text("utf-8"), add_special_tokens=False)["input_ids"]
        return torch.tensor([ids[i : i + length] for i in range(0, length * count, length)])

    return {
        "korean": torch.cat([cut(f"prose/{name}.txt", 1024, 6) for name in ("6_korean_help", "7_korean_general")]),
        "long": cut("heldout.txt", 4096, 3),
    }


def divergence(base: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
    """Mean KL(base || logp) of each window, in nats."""
    return torch.stack([(b.exp() * (b - q)).sum(-1).mean() for b, q in zip(base, logp, strict=True)])


def made(model: Path, folder: Path, rounding: Any) -> tuple[Path, float]:
    """The checkpoint, and how long it took to make; 0 if it was there."""
    if (folder / rounding / "config.json").exists():
        return folder / rounding, 0.0
    data = [str(TINY / "calibration.jsonl")] if rounding in ("gptq", "weighted-sweep") else []
    began = time.monotonic()
    quantize(model, folder / rounding, rounding=rounding, input_scale="1", calibrate=data)
    return folder / rounding, time.monotonic() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=ANIMALS, default=TINY.name)
    options.add_argument("--windows", type=int, default=16)
    options.add_argument("--slices", action="store_true", help="Korean and long context too")
    options.add_argument("--tasks", type=int, default=0, help="items of each short task")
    options.add_argument("--keep", type=Path)
    options.add_argument("--only", nargs="+", choices=ROUNDINGS, default=ROUNDINGS)
    chosen = options.parse_args()
    animal = ANIMALS[chosen.model]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)[: chosen.windows]
    plain = load(animal)
    base = log_probabilities(plain, tokens)
    others = slices(tokenizer) if chosen.slices else {}
    bases = {name: log_probabilities(plain, ids) for name, ids in others.items()}
    rows: list[dict[str, Any]] = [{"rounding": "BF16", "activations": "a16", "perplexity": perplexity(base, tokens)}]

    def measure(rounding: str, activations: str, model: Any, seconds: float) -> None:
        logp = log_probabilities(model, tokens)
        kl = divergence(base, logp)
        rows.append(
            {
                "rounding": rounding,
                "activations": activations,
                "perplexity": perplexity(logp, tokens),
                "kl": kl.mean().item(),
                "kl_by_window": kl.tolist(),
                "kl_by_slice": {
                    name: divergence(whole, log_probabilities(model, others[name])).mean().item()
                    for name, whole in bases.items()
                },
                "top1_agreement": (base.argmax(-1) == logp.argmax(-1)).float().mean().item(),
                "seconds": seconds,
                "accuracy": accuracies(model, tokenizer, chosen.tasks, 0) if chosen.tasks else {},
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "kl_by_window"}, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        for rounding in chosen.only:
            out, seconds = made(animal, folder, rounding)
            load_decoded(plain, out)
            measure(rounding, "a16", plain, seconds)
            ours = load(out)
            runtime.use(ours, backend="dequant", activations="a4-sim")
            measure(rounding, "a4-sim", ours, seconds)
            del ours
    columns = ["rounding", "activations", "perplexity", "KL to BF16", *others, "top-1", "seconds to make"]
    cells = []
    for row in rows:
        figures = [row["kl"], *row["kl_by_slice"].values()] if "kl" in row else [0.0] * (1 + len(others))
        cells.append([row["rounding"], row["activations"], f"{row['perplexity']:.3f}"])
        cells[-1] += [f"{kl:.5f}" for kl in figures]
        cells[-1] += [f"{row.get('top1_agreement', 1):.1%}", f"{row.get('seconds', 0):.0f}"]
    show(f"{animal.name}, routed experts in NVFP4, {len(tokens)} windows of 1,024 tokens", columns, cells)
    record("rounding", {"model": animal.name, "windows": len(tokens), "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
