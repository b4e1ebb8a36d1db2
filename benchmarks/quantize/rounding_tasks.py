"""What each rounding does to tiny-glm's six tasks: accuracy with Wilson's 95 % interval, beside BF16.

    python -m benchmarks.quantize.rounding_tasks FOLDER [--items 400] [--long 300] [--jobs 7]

FOLDER holds the checkpoints max, sweep and gptq, as `rounding.py --keep FOLDER` leaves them. Greedy decoding in float32
by the tiny model's own scorer, on CUDA where there is one; W4A16 is the decoded checkpoint, W4A4 our runtime's a4-sim.
Every variant answers the same items. --jobs: variants at once.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from transformers import AutoTokenizer

import halfbyte.runtime as runtime
from benchmarks.chat.runtime_accuracy import load
from benchmarks.compare.scorer import run_task
from benchmarks.compare.tiny_accuracy import LONG, TINY, load_decoded
from benchmarks.table import record, show
from halfbyte.numbers.share import share

VARIANTS = [("BF16", "a16"), *((rounding, mode) for mode in ("a16", "a4-sim") for rounding in ("max", "sweep", "gptq"))]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def answered(
    folder: Path, rounding: str, activations: str, items: int, long_items: int, jobs: int
) -> dict[str, list[bool]]:
    """Which items of each task one variant gets right."""
    if DEVICE == "cuda":  # what the indexer of transformers leaves in one process's cache is another's out of memory
        torch.cuda.set_per_process_memory_fraction(0.9 / jobs)
    if activations == "a16":
        model = load(TINY)
        if rounding != "BF16":
            load_decoded(model, folder / rounding)
        model.to(DEVICE)
    else:
        model = load(folder / rounding).to(DEVICE)
        runtime.use(model, backend="dequant", activations=activations)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    right = {}
    for path in sorted((TINY / "tasks").glob("*.jsonl")):
        count, batch = (long_items, 4) if path.stem == LONG else (items, 100)
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
        _, outcomes = run_task(model, tokenizer, lines, batch)
        right[path.stem] = [outcome["correct"] for outcome in outcomes]
        print(f"{rounding} {activations} {path.stem}: {sum(right[path.stem])} of {len(lines)}", flush=True)
    return right


def cell(right: list[bool]) -> str:
    estimate = share(sum(right), len(right))
    return f"{estimate.mean:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--items", type=int, default=400, help="items of each short task")
    options.add_argument("--long", type=int, default=300, help="items of long_context")
    options.add_argument("--jobs", type=int, default=1)
    chosen = options.parse_args()
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(answered, chosen.folder, *v, chosen.items, chosen.long, chosen.jobs) for v in VARIANTS]
        results = [future.result() for future in waiting]
    tasks = list(results[0])
    cells = []
    for (rounding, activations), right in zip(VARIANTS, results, strict=True):
        every = [answer for task in tasks for answer in right[task]]
        cells.append([rounding, activations, *(cell(right[task]) for task in tasks), cell(every)])
    show(f"tiny-glm, six tasks, {DEVICE}", ["rounding", "activations", *tasks, "all items"], cells)
    rows = [
        {
            "rounding": rounding,
            "activations": activations,
            "right": {task: sum(answers) for task, answers in right.items()},
            "changed_from_bf16": {
                task: sum(a != b for a, b in zip(answers, results[0][task], strict=True))
                for task, answers in right.items()
            },
        }
        for (rounding, activations), right in zip(VARIANTS, results, strict=True)
    ]
    items = {task: len(answers) for task, answers in results[0].items()}
    record("rounding_tasks", {"device": DEVICE, "torch": torch.__version__, "items": items, "rows": rows})


if __name__ == "__main__":
    main()
