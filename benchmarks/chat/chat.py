"""Prefill and decode on a CPU: llama.cpp, transformers and our transformers path on one mixture-of-experts model.

    python -m benchmarks.chat.chat [--layers 7] [--scratch DIR]

A random Qwen3-MoE (H 2048, I 768, 64 experts, top-8; 7 layers are 4.2 GB of BF16 experts) in NVFP4, its GGUF, and the
same numbers decoded to BF16. Each row is a process of its own: load, warm up, prefill 512 tokens, decode 32, tokens
per second of both, peak resident memory. Bytes of experts are those of the loaded parameters. The floor of decode is
the memory's: bytes of weights one token touches over the read bandwidth measured in this run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export.export import EXPERTS, HIDDEN, VOCAB, WIDTH, make_checkpoint
from benchmarks.table import again, record, show

PROMPT, DECODE, THREADS = 512, 32, 2
ATTENTION_PARAMETERS = HIDDEN * (2048 + 512 + 512 + 2048 + EXPERTS)
EXPERT_PARAMETERS = 3 * HIDDEN * WIDTH
PATHS = {
    "llama.cpp, NVFP4": ("llama.cpp", "", "model.gguf"),
    "transformers, BF16": ("transformers", "bfloat16", "bf16"),
    "transformers, float32": ("transformers", "float32", "bf16"),
    "ours in transformers, NVFP4, BF16": ("transformers", "bfloat16", "nvfp4"),
    "ours in transformers, NVFP4, float32": ("transformers", "float32", "nvfp4"),
}
"""Row -> engine, compute dtype, file in the scratch folder."""


def decode_to_bf16(source: Path, out: Path) -> None:
    """The NVFP4 checkpoint's numbers as a BF16 checkpoint, one shard at a time."""
    import ml_dtypes

    from halfbyte.checkpoint.header import serialize_header
    from halfbyte.checkpoint.inventory import inventory
    from halfbyte.checkpoint.source import Checkpoint
    from halfbyte.formats.catalogue import NVFP4
    from halfbyte.formats.nvfp4.codec import decode
    from halfbyte.formats.nvfp4.reference import Encoded
    from halfbyte.models import roles_of

    out.mkdir()
    weight_map: dict[str, str] = {}
    with Checkpoint.open(source) as checkpoint:

        def read(tensor: Any) -> bytearray:
            buffer = bytearray(tensor.bytes)
            checkpoint.read_into(tensor, memoryview(buffer))
            return buffer

        entries = inventory(checkpoint.tensors, roles_of(checkpoint.config))
        for shard in checkpoint.shards:
            mine = [e for e in entries if next(iter(e.tensors.values())).shard == shard]
            header = [(e.name, "BF16", e.shape, 2 * e.parameters) for e in mine]
            with open(out / shard, "wb") as file:
                file.write(serialize_header(header, {"format": "pt"}))
                for entry in mine:
                    parts = {part: read(tensor) for part, tensor in entry.tensors.items()}
                    if entry.format != NVFP4:
                        file.write(parts["weight"])
                        continue
                    rows = entry.shape[0]
                    codes, scales = (
                        np.frombuffer(parts[p], np.uint8).reshape(rows, -1) for p in ("weight", "weight_scale")
                    )
                    values = decode(Encoded(codes, scales, np.frombuffer(parts["weight_scale_2"], np.float32)[0]))
                    file.write(values.astype(ml_dtypes.bfloat16).tobytes())
            weight_map |= dict.fromkeys((e.name for e in mine), shard)
        config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    (out / "config.json").write_text(json.dumps(config))
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def by_llama_cpp(file: Path) -> dict[str, float]:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_gpu_layers, settings.n_ctx, settings.n_parallel, settings.port = 0, 1024, 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    settings.verbosity, settings.ui = -1, False
    server = xllamacpp.Server(settings)

    def ask(seed: int) -> dict[str, Any]:
        prompt = np.random.default_rng(seed).integers(1, 256, PROMPT).tolist()
        request = {"prompt": prompt, "n_predict": DECODE, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        answer: Any = server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        timings: dict[str, Any] = answer["timings"]
        return timings

    ask(0)
    timings = ask(1)
    return {"prefill": timings["prompt_per_second"], "decode": timings["predicted_per_second"]}


def by_transformers(folder: Path, dtype: str) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    import halfbyte.runtime

    assert halfbyte.runtime
    torch.set_num_threads(THREADS)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    stacks = [p for name, p in model.named_parameters() if ".experts." in name]
    ids = torch.randint(1, 256, (2, PROMPT), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model(ids[:1, :64])
        began = time.monotonic()
        out = model(ids[1:], use_cache=True, logits_to_keep=1)
        prefill = time.monotonic() - began
        began = time.monotonic()
        for _ in range(DECODE):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
        decode = time.monotonic() - began
    experts = sum(p.numel() * p.element_size() for p in stacks)
    return {"prefill": PROMPT / prefill, "decode": DECODE / decode, "expert_bytes": experts}


def memory_gb_s() -> float:
    """Read bandwidth of all threads together: the best of five sums over 2 GB."""
    array = np.ones(2**28, np.float64)
    parts = np.array_split(array, THREADS)
    best = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            began = time.monotonic()
            list(pool.map(np.sum, parts))
            best = max(best, array.nbytes / (time.monotonic() - began) / 1e9)
    return best


def touched_bytes(engine_file: str, dtype: str, layers: int) -> float:
    """Bytes of weights that one decoded token reads."""
    dense = layers * ATTENTION_PARAMETERS + VOCAB * HIDDEN
    wide = 4 if dtype == "float32" else 2
    experts = layers * 8 * EXPERT_PARAMETERS
    return dense * wide + experts * (wide if engine_file == "bf16" else 9 / 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--scratch", type=Path, help="folder for some 8 GB of files")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        from halfbyte.process import peak_rss_bytes

        engine, dtype, file = PATHS[options.cell]
        path = options.scratch / file
        figures = by_llama_cpp(path) if engine == "llama.cpp" else by_transformers(path, dtype)
        print(json.dumps(figures | {"peak_rss_bytes": peak_rss_bytes()}))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        from halfbyte.export import export

        folder = Path(scratch)
        make_checkpoint(folder / "nvfp4", options.layers)
        decode_to_bf16(folder / "nvfp4", folder / "bf16")
        export(folder / "nvfp4", folder / "model.gguf")
        bandwidth, bf16_experts = memory_gb_s(), options.layers * EXPERTS * EXPERT_PARAMETERS * 2
        rows: dict[str, dict[str, float]] = {}
        for name, (engine, dtype, file) in PATHS.items():
            command = again("--cell", name, "--scratch", scratch)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            if engine == "llama.cpp":
                row["expert_bytes"] = bf16_experts * 9 / 32
            row["decode_floor"] = 1e9 * bandwidth / touched_bytes(file, dtype, options.layers)
            rows[name] = row
            print(name, row, file=sys.stderr)
    cells = []
    for name, r in rows.items():
        rates = [f"{r[key]:.1f}" for key in ("prefill", "decode", "decode_floor")]
        cells.append([name, *rates, f"{r['expert_bytes'] / bf16_experts:.3f}", f"{r['peak_rss_bytes'] / 1e9:.2f} GB"])
    title = f"Qwen3-MoE, {options.layers} layers, {bf16_experts / 1e9:.1f} GB of BF16 experts, {THREADS} threads"
    columns = ["path", "prefill tokens/s", "decode tokens/s", "decode floor", "experts / BF16", "peak memory"]
    show(f"{title}, memory {bandwidth:.1f} GB/s", columns, cells)
    record("chat", {"layers": options.layers, "memory_gb_s": bandwidth, "rows": rows})


if __name__ == "__main__":
    main()
