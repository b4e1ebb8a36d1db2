"""`halfbyte export` against llama.cpp's own converter on the same NVFP4 checkpoint: seconds, memory, share of the disk.

    python -m benchmarks.export.export --llama-cpp VENDOR/llama.cpp --llama-python PYTHON [--gigabytes 1.2] [--runs 3]

--llama-cpp: llama.cpp's source folder (`vendor/` of llama-cpp-python's source package). --llama-python: an
interpreter with torch and transformers, for the converter. Without them only Halfbyte is measured. Every run starts
with the source out of the page cache and ends when the output is synced. Both outputs are verified against the
checkpoint before a number is printed.
"""

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import record
from halfbyte import __version__
from halfbyte.checkpoint.header import serialize_header
from halfbyte.export import verify_gguf
from halfbyte.models.splitting import ONE_DIGIT

HIDDEN, WIDTH, EXPERTS, VOCAB = 2048, 768, 64, 8192
PIECE = 8 << 20
LAYER_BYTES = EXPERTS * 3 * HIDDEN * WIDTH * 9 // 16
PEAK = """
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
CONVERT = """
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""
EXPORT = "import sys; from halfbyte.export import export; export(sys.argv[1], sys.argv[2])"


class Run(NamedTuple):
    seconds: float
    peak_bytes: int


class Disk(NamedTuple):
    """GB/s."""

    read: float
    write: float
    copy: float


def make_checkpoint(folder: Path, layers: int) -> Path:
    """A random Qwen3-MoE in ModelOpt NVFP4, written layer by layer."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    weight_map: dict[str, str] = {}
    for layer in range(-1, layers):
        tensors = _ends(random) if layer < 0 else _layer(random, layer)
        file = f"model-{layer + 2:05d}-of-{layers + 1:05d}.safetensors"
        with open(folder / file, "wb") as shard:
            shard.write(serialize_header([(n, d, t.shape, t.nbytes) for n, (d, t) in tensors.items()], {}))
            for _, tensor in tensors.values():
                shard.write(tensor.tobytes())
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    ignore = ["lm_head", *(f"model.layers.{i}.{part}" for i in range(layers) for part in ("self_attn*", "mlp.gate"))]
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN,
        "intermediate_size": 6144, "moe_intermediate_size": WIDTH, "num_experts": EXPERTS, "num_experts_per_tok": 8,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
        "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ignore},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    return folder


def _bf16(random: np.random.Generator, *shape: int) -> tuple[str, np.ndarray]:
    return "BF16", (random.standard_normal(shape, np.float32) * 0.02).view(np.uint32).__rshift__(16).astype(np.uint16)


def _ends(random: np.random.Generator) -> dict[str, tuple[str, np.ndarray]]:
    return {
        "model.embed_tokens.weight": _bf16(random, VOCAB, HIDDEN),
        "model.norm.weight": _bf16(random, HIDDEN),
        "lm_head.weight": _bf16(random, VOCAB, HIDDEN),
    }


def _layer(random: np.random.Generator, layer: int) -> dict[str, tuple[str, np.ndarray]]:
    base, tensors = f"model.layers.{layer}", {}
    for name, shape in {
        "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,), "self_attn.q_norm": (128,),
        "self_attn.k_norm": (128,), "self_attn.q_proj": (2048, HIDDEN), "self_attn.k_proj": (512, HIDDEN),
        "self_attn.v_proj": (512, HIDDEN), "self_attn.o_proj": (HIDDEN, 2048), "mlp.gate": (EXPERTS, HIDDEN),
    }.items():  # fmt: skip
        tensors[f"{base}.{name}.weight"] = _bf16(random, *shape)
    for expert in range(EXPERTS):
        for linear, (rows, columns) in {
            "gate_proj": (WIDTH, HIDDEN), "up_proj": (WIDTH, HIDDEN), "down_proj": (HIDDEN, WIDTH)
        }.items():  # fmt: skip
            module = f"{base}.mlp.experts.{expert}.{linear}"
            codes = random.integers(0, 256, (rows, columns // 2), np.uint8)
            scales = random.integers(0x30, 0x7F, (rows, columns // 16), np.uint8)
            tensors[f"{module}.weight"] = "U8", codes
            tensors[f"{module}.weight_scale"] = "F8_E4M3", scales
            tensors[f"{module}.weight_scale_2"] = "F32", np.array(1e-4 * (1 + expert), np.float32)
            tensors[f"{module}.input_scale"] = "F32", np.array(0.01, np.float32)
    return tensors


def _write_tokenizer(folder: Path) -> None:
    rule = ONE_DIGIT[0]
    letters = [chr(n) for n in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144)]]
    split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = {"id": 257, "content": "<|endoftext|>", "special": True, "normalized": False, "single_word": False}
    tokenizer = {
        "version": "1.0", "added_tokens": [added | {"lstrip": False, "rstrip": False}], "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_]}, "decoder": bytes_,
        "model": {"type": "BPE", "vocab": {x: n for n, x in enumerate([*letters, "th"])}, "merges": [["t", "h"]]},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def timed(command: list[str], source: Path, out: Path, environment: dict[str, str]) -> Run:
    """Run a command from a cold source until its output is on disk."""
    out.unlink(missing_ok=True)
    forget(source)
    began = time.monotonic()
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command[:3])}\n{process.stderr[-2000:]}")
    file = os.open(out, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    return Run(time.monotonic() - began, 1024 * int(process.stdout.split()[-1]))


def disk_rates(source: Path, scratch: Path) -> Disk:
    """What the disk gives to four threads with 8 MiB pieces past the page cache: reading, writing, and both at once
    (a plain copy), each until synced."""
    target, size = scratch / "disk-test", sum(path.stat().st_size for path in source.glob("*.safetensors"))
    pieces = [
        (path, offset)
        for path in sorted(source.glob("*.safetensors"))
        for offset in range(0, path.stat().st_size, PIECE)
    ]

    def rate(reads: bool, writes: bool) -> float:
        forget(source)
        target.unlink(missing_ok=True)
        files, own = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path, _ in pieces}, threading.local()
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        os.posix_fallocate(out, 0, len(pieces) * PIECE)

        def move(number: int) -> None:
            if not hasattr(own, "buffer"):
                own.buffer = mmap.mmap(-1, PIECE)
            path, offset = pieces[number]
            if reads:
                os.preadv(files[path], [own.buffer], offset)
            if writes:
                os.pwrite(out, own.buffer, number * PIECE)

        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(move, range(len(pieces))))
        os.fsync(out)
        taken = time.monotonic() - began
        for file in (*files.values(), out):
            os.close(file)
        target.unlink()
        return size / taken / 1e9

    return Disk(rate(True, False), rate(False, True), rate(True, True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--llama-python", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        row = measure(arguments, Path(folder))
    show(row)
    record("export", row)


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    source = make_checkpoint(scratch / "in", max(1, round(arguments.gigabytes * 1e9 / LAYER_BYTES)))
    ours = [sys.executable, "-c", EXPORT + PEAK, str(source), str(scratch / "halfbyte.gguf")]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {"halfbyte": (ours, {})}
    if arguments.llama_cpp and arguments.llama_python:
        command = [
            str(arguments.llama_python),
            "-c",
            CONVERT + PEAK,
            str(source),
            "--outfile",
            str(scratch / "llama.cpp.gguf"),
        ]
        paths = os.pathsep.join([str(arguments.llama_cpp), str(arguments.llama_cpp / "gguf-py")])
        commands["llama.cpp"] = (command, {"PYTHONPATH": paths})
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    rates = []
    for _ in range(arguments.runs):
        rates.append(disk_rates(source, scratch))
        for name, (command, extra) in commands.items():
            runs[name].append(timed(command, source, scratch / f"{name}.gguf", os.environ | extra))
    for name in commands:
        outcome = verify_gguf(source, scratch / f"{name}.gguf")
        if not outcome.ok:
            raise SystemExit(f"{name}: not lossless: {outcome.problems}")
    size = (scratch / "halfbyte.gguf").stat().st_size
    disk = Disk(*(statistics.median(side) for side in zip(*rates, strict=True)))
    return {
        "version": __version__,
        "model": f"qwen3_moe H {HIDDEN} I {WIDTH} E {EXPERTS}",
        "bytes": size,
        "disk_gb_s": {name: round(rate, 3) for name, rate in disk._asdict().items()},
        "runs": {name: summary(taken, size, disk) for name, taken in runs.items()},
    }


def summary(taken: list[Run], size: int, disk: Disk) -> dict[str, Any]:
    seconds = statistics.median(run.seconds for run in taken)
    rate = size / seconds / 1e9
    return {
        "seconds": [round(run.seconds, 2) for run in taken],
        "median_seconds": round(seconds, 2),
        "gb_s": round(rate, 3),
        "share_of_min_read_write": round(rate / min(disk.read, disk.write), 3),
        "share_of_copy": round(rate / disk.copy, 3),
        "peak_rss_bytes": max(run.peak_bytes for run in taken),
    }


def show(row: dict[str, Any]) -> None:
    disk = ", ".join(f"{name} {rate:.2f}" for name, rate in row["disk_gb_s"].items())
    print(f"{row['bytes'] / 1e9:.2f} GB of GGUF ({row['model']}), all verified lossless; disk GB/s: {disk}")
    print(f"{'':10}{'seconds':>9}{'spread':>15}{'GB/s':>7}{'of min(r, w)':>14}{'of copy':>9}{'peak memory':>12}")
    for name, run in row["runs"].items():
        spread = f"{min(run['seconds'])}–{max(run['seconds'])}"
        print(
            f"{name:10}{run['median_seconds']:>9}{spread:>15}{run['gb_s']:>7.2f}"
            f"{run['share_of_min_read_write']:>14.0%}{run['share_of_copy']:>9.0%}"
            f"{run['peak_rss_bytes'] / 1e9:>8.2f} GB"
        )


if __name__ == "__main__":
    main()
