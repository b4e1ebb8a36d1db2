"""tiny-glm through llama.cpp and through transformers: perplexity and task accuracy, BF16 beside NVFP4.

    python -m benchmarks.export.llamacpp_accuracy [--items 100] [--long 20] [--every 4]

Perplexity: heldout.txt cut into chunks of 1,024 tokens, the second half of every `--every`-th chunk scored (llama.cpp's
own convention is the second half), the same tokens by both engines. Accuracy: the first items of each task
set, greedy, scored by the tiny model's own scorer; both engines get the same prompt tokens and their tokens are decoded
by the same tokenizer. Intervals are Wilson's, 95 %. llama.cpp rounds activations to eight bits, transformers computes
in float32.
"""

import argparse
import json
import math
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import torch
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

import halfbyte.runtime
from benchmarks.compare.scorer import correct, run_task
from benchmarks.table import ROOT, record, show
from halfbyte.api import quantize
from halfbyte.export import export

assert halfbyte.runtime
TINY = ROOT / "examples/tiny-glm"
CHUNK = 1024


class LlamaCpp:
    """One GGUF behind llama.cpp's server, which takes and gives tokens."""

    def __init__(self, path: Path) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_gpu_layers, settings.n_ctx, settings.n_parallel, settings.port = 0, 4096, 1, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 2
        settings.verbosity, settings.ui = -1, False
        self._server = xllamacpp.Server(settings)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(request | {"cache_prompt": True}).encode()
        url = self._server.listening_address + "/completion"
        with urllib.request.urlopen(urllib.request.Request(url, content)) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def negative_log_likelihood(self, chunk: list[int], at: int) -> float | None:
        """Of chunk[at] after chunk[:at], forced by a bias; None where llama.cpp reports nothing (part of a letter)."""
        bias = [[chunk[at], 1000.0]]
        request = {"prompt": chunk[:at], "n_predict": 1, "n_probs": 1, "temperature": 1, "samplers": []}
        found = self._ask(request | {"logit_bias": bias}).get("completion_probabilities")
        return -float(found[0]["logprob"]) if found else None

    def generate(self, prompt: list[int], limit: int) -> list[int]:
        request = {"prompt": prompt, "n_predict": limit, "temperature": 0, "return_tokens": True}
        tokens: list[int] = self._ask(request)["tokens"]
        return tokens


def wilson(right: int, items: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, p = 1.959964, right / items
    middle, half = p + z * z / (2 * items), z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items))
    return (middle - half) / (1 + z * z / items), (middle + half) / (1 + z * z / items)


def perplexities(engine: LlamaCpp, model: Any, chunks: list[list[int]]) -> tuple[float, float, int]:
    """Of llama.cpp and of transformers, over the tokens that llama.cpp reports."""
    ours, theirs = [], []
    for chunk in chunks:
        with torch.no_grad():
            logp = model(torch.tensor([chunk]), use_cache=False).logits[0].float().log_softmax(-1)
        for at in range(CHUNK // 2, CHUNK):
            found = engine.negative_log_likelihood(chunk, at)
            if found is not None:
                ours.append(found)
                theirs.append(-logp[at - 1, chunk[at]].item())
    return math.exp(sum(ours) / len(ours)), math.exp(sum(theirs) / len(theirs)), len(ours)


def tasks(engine: LlamaCpp, model: Any, tokenizer: Any, items: int, long: int) -> dict[str, dict[str, Any]]:
    """Task -> right answers of both engines, and how many items."""
    result = {}
    for path in sorted((TINY / "tasks").glob("*.jsonl")):
        count = long if path.stem == "long_context" else items
        work = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
        right = 0
        for item in work:
            prompt = tokenizer.apply_chat_template(
                item["messages"], tools=item.get("tools"), tokenize=False, add_generation_prompt=True
            )
            wanted = tokenizer(item["reference_reasoning"] + item["answer"], add_special_tokens=False)["input_ids"]
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            right += correct(tokenizer.decode(engine.generate(ids, len(wanted) + 16)), item)
        share, _ = run_task(model, tokenizer, work, 4 if path.stem == "long_context" else 50)
        result[path.stem] = {"items": len(work), "llama.cpp": right, "transformers": round(share * len(work))}
        print(path.stem, result[path.stem], file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--long", type=int, default=20, help="items of long_context")
    parser.add_argument("--every", type=int, default=4, help="of 64 chunks, one in how many is scored")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    ids = tokenizer((TINY / "heldout.txt").read_text("utf-8"), add_special_tokens=False)["input_ids"]
    chunks = [ids[a : a + CHUNK] for a in range(0, len(ids) - CHUNK + 1, CHUNK * options.every)]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        quantize(TINY, Path(scratch) / "NVFP4")
        for name, folder in {"BF16": TINY, "NVFP4": Path(scratch) / "NVFP4"}.items():
            export(folder, Path(scratch) / f"{name}.gguf")
            engine = LlamaCpp(Path(scratch) / f"{name}.gguf")
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            llama, transformers, scored = perplexities(engine, model.eval(), chunks)
            figures = {"llama.cpp": llama, "transformers": transformers, "tokens": scored}
            print(name, figures, file=sys.stderr)
            results[name] = {
                "perplexity": figures,
                "tasks": tasks(engine, model, tokenizer, options.items, options.long),
            }
    rows = []
    for name, result in results.items():
        for engine_name in ("llama.cpp", "transformers"):
            cells = []
            for task in result["tasks"].values():
                low, high = wilson(task[engine_name], task["items"])
                cells.append(f"{task[engine_name] / task['items']:.0%} ({low:.0%}–{high:.0%})")
            rows.append([f"{name}, {engine_name}", f"{result['perplexity'][engine_name]:.2f}", *cells])
    scored = results["BF16"]["perplexity"]["tokens"]
    title = f"tiny-glm, {scored} tokens, {options.items} items a task ({options.long} long)"
    show(title, ["checkpoint, engine", "perplexity", *results["BF16"]["tasks"]], rows)
    record("llamacpp_accuracy", {"items": options.items, "long": options.long, "every": options.every} | results)


if __name__ == "__main__":
    main()
