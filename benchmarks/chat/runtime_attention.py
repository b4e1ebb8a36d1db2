"""Time and peak memory of prefill and decode as the context grows: our attention beside transformers' own.

    python -m benchmarks.chat.runtime_attention                                  # CPU, float32, tiny-glm
    python -m benchmarks.chat.runtime_attention --device cuda --shape glm-5.2    # one GPU, bfloat16, GLM-5.2's own

Every cell is a process of its own: it loads the model, prefills random tokens, decodes, and reports. A path is one of

    ours          halfbyte.modules.attention, one call for the whole prompt
    eager, sdpa   transformers' attention implementations, one call
    eager/256     the same with the prompt in calls of 256 tokens (`prefill_chunk_size=256`), its way to save memory

Time is the clock's on a GPU, and one thread's processor time on a CPU, which other work on the machine does not change.
Peak memory is what is above the loaded model: resident pages on a CPU, the allocator's peak on a GPU. A CPU cell may
use --memory-gb of address space more than it has after loading. Once a path has failed at a length, longer ones are not
tried. tiny-glm is made for 8,192 tokens: beyond, its rotary angles are extrapolated, which changes what it says, not
what it costs. Before anything is timed, our logits are compared with eager's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples/tiny-glm"
PATHS = ("ours", "eager", "sdpa", "eager/256")
# zai-org/GLM-5.2's attention and indexer, every fourth layer selects; small dense MLPs, small vocabulary.
GLM_5_2 = {
    "vocab_size": 4096,
    "hidden_size": 6144,
    "intermediate_size": 512,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "q_lora_rank": 2048,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "head_dim": 64,
    "index_topk": 2048,
    "index_n_heads": 32,
    "index_head_dim": 128,
    "max_position_embeddings": 131072,
    "pad_token_id": 0,
}


def load(shape: str, implementation: str, device: str, dtype: Any, layers: int) -> Any:
    """The model of a shape, with random weights unless it is tiny-glm."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if shape == "tiny-glm":
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=dtype, attn_implementation=implementation)
        return model.to(device).eval()
    torch.manual_seed(0)
    kinds = [("shared" if i % 4 else "full") for i in range(layers)]
    count = {"num_hidden_layers": layers, "indexer_types": kinds, "mlp_layer_types": ["dense"] * layers}
    config = AutoConfig.for_model("glm_moe_dsa", **GLM_5_2 | count)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=implementation).eval()


def agreement(shape: str, device: str, dtype: Any) -> dict[str, float]:
    """How far our logits are from eager's, on 320 tokens of tiny-glm or 2,304 of the other shape.

    Largest difference in float32; in bfloat16, where one rounding can turn a router's decision, root mean square errors
    of eager and of ours against eager in float32.
    """
    import torch

    from halfbyte.modules.attention import install, uninstall

    model = load(shape, "eager", device, torch.float32, layers=4)
    ids = torch.randint(1, 4096, (1, 320 if shape == "tiny-glm" else 2304), device=device)

    def logits(ours: bool) -> Any:
        (install if ours else uninstall)(model)
        with torch.no_grad():
            return model(ids, logits_to_keep=256).logits.float()

    exact = logits(ours=False)
    result = {"float32_largest": (logits(ours=True) - exact).abs().max().item()}
    if dtype != torch.float32:
        model.to(dtype)
        for name, ours in (("eager_rms", False), ("ours_rms", True)):
            result[name] = (logits(ours) - exact).pow(2).mean().sqrt().item()
    return result


def cell(path: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prefill and decode once in this process."""
    import torch

    from halfbyte.modules.attention import install
    from halfbyte.process import peak_rss_bytes

    device, decode, dtype = options.device, options.decode, getattr(torch, options.dtype)
    model = load(options.shape, "sdpa" if path == "sdpa" else "eager", device, dtype, options.layers)
    if path == "ours":
        install(model)
    chunk = 256 if path.endswith("/256") else length
    ids = torch.randint(1, 4096, (1, length + decode), device=device, generator=torch.Generator(device).manual_seed(1))
    clock = time.process_time if device == "cpu" else time.perf_counter
    times, cache = [], None
    with torch.no_grad():
        model(ids[:, :64])  # warm up: libraries, thread pools
        before = _memory(device, reset=True)
        if device == "cpu":
            _limit(options.memory_gb)
        _wait(device)
        start = clock()
        for at in range(0, length, chunk):
            out = model(ids[:, at : min(at + chunk, length)], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
        _wait(device)
        seconds = clock() - start
        peak = (peak_rss_bytes() if device == "cpu" else torch.cuda.max_memory_allocated()) - before
        for at in range(length, length + decode):
            start = clock()
            cache = model(ids[:, at : at + 1], past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
            _wait(device)
            times.append(clock() - start)
    return {"prefill_seconds": seconds, "peak_bytes": peak, "decode_ms": median(times) * 1e3}


def _memory(device: str, *, reset: bool) -> int:
    """Bytes in use now; what is measured as a peak later starts from here."""
    import torch

    if device != "cpu":
        if reset:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _limit(memory_gb: float) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def run_cell(path: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """A cell in a process of its own; {"failed": why} where it did not finish."""
    from benchmarks.table import again

    command = again("--cell", path, "--lengths", str(length))
    for name in ("shape", "device", "dtype", "memory_gb", "decode", "threads", "layers"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds, env=environment)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {options.seconds} s"}
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result
    errors = done.stderr.strip().splitlines()
    memory = any(sign in done.stderr for sign in ("out of memory", "not enough memory", "can't allocate memory"))
    if not memory and done.returncode != -9:
        print(done.stderr[-3000:], file=sys.stderr)
    return {"failed": "out of memory" if memory or done.returncode == -9 else errors[-1][:80]}


def text_of(result: dict[str, Any] | None) -> list[str]:
    """Cells of one path at one length: seconds, peak, decode."""
    if result is None:
        return ["", "", ""]
    if "failed" in result:
        return [result["failed"], "", ""]
    peak = result["peak_bytes"] / 2**30
    return [f"{result['prefill_seconds']:.2f} s", f"{peak:.2f} GiB", f"{result['decode_ms']:.1f} ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="", help="default float32 on a CPU, bfloat16 elsewhere")
    parser.add_argument("--shape", default="tiny-glm", choices=("tiny-glm", "glm-5.2"))
    parser.add_argument("--layers", type=int, default=4, help="of the shape glm-5.2")
    parser.add_argument("--lengths", default="1024,2048,4096,8192,16384,32768,65536")
    parser.add_argument("--paths", default=",".join(PATHS))
    parser.add_argument("--decode", type=int, default=5, help="tokens decoded after the prompt")
    parser.add_argument("--memory-gb", type=float, default=14, help="for one cell on a CPU")
    parser.add_argument("--seconds", type=float, default=600, help="for one cell")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch on a CPU; more make processor time count waits"
    )
    parser.add_argument("--out", type=Path, help="append the row here instead of benchmarks/results/")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")

    import torch

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    lengths = [int(length) for length in options.lengths.split(",")]
    if options.cell:
        print(json.dumps(cell(options.cell, lengths[0], options)))
        return

    sys.path.insert(0, str(ROOT / "src"))
    logits = agreement(options.shape, options.device, dtype)
    print(f"logits against eager: {logits}", flush=True)
    tolerance = 1e-4 if options.device == "cpu" else 1e-3
    if logits["float32_largest"] > tolerance or logits.get("ours_rms", 0) > 2 * logits.get("eager_rms", 0):
        raise SystemExit("not equal to eager: nothing is timed")
    if options.device != "cpu":
        torch.cuda.empty_cache()
    results: dict[str, dict[str, Any]] = {path: {} for path in options.paths.split(",")}
    for length in lengths:
        for path, row in results.items():
            if not any("failed" in result for result in row.values()):
                row[str(length)] = run_cell(path, length, options)
                print(length, path, row[str(length)], flush=True)

    from benchmarks.table import record, show

    columns = ["tokens", *(f"{path}: {what}" for path in results for what in ("prefill", "peak", "decode"))]
    cells = [[f"{n:,}", *(part for row in results.values() for part in text_of(row.get(str(n))))] for n in lengths]
    name = torch.cuda.get_device_name() if options.device != "cpu" else f"CPU, {options.threads} thread"
    shape = options.shape if options.shape == "tiny-glm" else f"{options.shape}, {options.layers} layers"
    show(f"{shape}, {options.dtype}, {name}, transformers {version('transformers')}", columns, cells)
    settings = {
        name: getattr(options, name)
        for name in ("shape", "layers", "device", "dtype", "memory_gb", "decode", "seconds")
    }
    row = settings | {"where": name, "torch": torch.__version__, "transformers": version("transformers")}
    row |= {"logits": logits, "results": results}
    if options.out:
        with open(options.out, "a") as file:
            file.write(json.dumps(row) + "\n")
    else:
        record("runtime_attention", row)


if __name__ == "__main__":
    main()
