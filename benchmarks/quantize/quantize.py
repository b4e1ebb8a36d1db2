"""A whole `halfbyte quantize` run, disk to disk, against its two limits and against ModelOpt.

    python -m benchmarks.quantize.quantize [--gigabytes 4] [--folder DIR]

Makes a GLM-MoE-DSA checkpoint of random weights with GLM-5.2's expert shape (2048 x 6144) in DIR, drops it from the
page cache, and runs the command as a user would. Limits, measured in the same run on the same files: the disk (read
the source and write as many bytes as the output has, synced, nothing else to do) and the encoder (all threads, in
memory).
ModelOpt quantizes a small checkpoint of the same family, load and export included, and so do we.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.quantize.encode import Ours, gb_per_s
from benchmarks.table import ROOT, peer, record, show
from halfbyte.checkpoint.header import serialize_header

GLM_BYTES = 1_506_659_919_872
CHUNK = 8 << 20
SHARD_BYTES = 500_000_000
"""A tenth of what is usual, for a checkpoint a hundredth of the usual size: hashing and syncing of shards overlap."""


def make_checkpoint(folder: Path, gigabytes: float, hidden: int, width: int, layers: int) -> int:
    """A checkpoint of the tiny model's config with other sizes. Returns its bytes."""
    config = json.loads((ROOT / "examples/tiny-glm/config.json").read_text())
    experts = max(8, round(gigabytes * 1e9 / (layers - 1) / (3 * 2 * hidden * width)))
    config |= {"hidden_size": hidden, "moe_intermediate_size": width, "n_routed_experts": experts, "vocab_size": 4096}
    config |= {"num_hidden_layers": layers, "intermediate_size": 512, "indexer_types": ["full"] * layers}
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM  # for the list of tensors, on the meta device

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in model.state_dict().items():
        stack = name.removesuffix("gate_up_proj") if name.endswith("gate_up_proj") else None
        if stack:
            for e in range(experts):
                shapes |= {f"{stack}{e}.{half}_proj.weight": (width, hidden) for half in ("gate", "up")}
        elif name.endswith("experts.down_proj"):
            shapes |= {f"{name.removesuffix('down_proj')}{e}.down_proj.weight": (hidden, width) for e in range(experts)}
        else:
            shapes[name] = tuple(tensor.shape)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pool = (random.standard_normal(1 << 24, np.float32) * np.float32(0.02)).astype(ml_dtypes.bfloat16)
    dtypes = {name: "F32" if name.endswith("e_score_correction_bias") else "BF16" for name in shapes}
    names = sorted(shapes, key=lambda name: dtypes[name] != "F32")
    sizes = {name: int(np.prod(shapes[name])) * (4 if dtypes[name] == "F32" else 2) for name in names}
    total = 0
    shards = max(1, round(sum(sizes.values()) / SHARD_BYTES))
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part_names = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        path = folder / f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        weight_map |= dict.fromkeys(part_names, path.name)
        with open(path, "wb") as file:
            file.write(serialize_header([(n, dtypes[n], shapes[n], sizes[n]) for n in part_names], {"format": "pt"}))
            for name in part_names:
                if dtypes[name] == "F32":
                    file.write(bytes(sizes[name]))
                    continue
                left = sizes[name] // 2
                while left:
                    start = int(random.integers(0, pool.size // 2)) & ~15
                    part = pool[start : start + min(left, pool.size // 2)]
                    file.write(part.tobytes())
                    left -= part.size
            file.flush()
            os.fsync(file.fileno())
        total += path.stat().st_size
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))
    return total


def forget(folder: Path) -> None:
    """Drop a checkpoint from the page cache."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_seconds(source: Path, output: Path, output_bytes: int) -> tuple[float, float, float]:
    """Read the source cold, write output_bytes synced: both at once, then each alone."""

    def read() -> None:
        buffer = bytearray(CHUNK)
        for path in sorted(source.glob("*.safetensors")):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def write() -> None:
        block = np.random.default_rng(1).bytes(CHUNK)
        with open(output, "wb", buffering=0) as file:
            for _ in range(output_bytes // CHUNK):
                file.write(block)
            os.fsync(file.fileno())

    def timed(*jobs: Any) -> float:
        forget(source)
        threads = [threading.Thread(target=job) for job in jobs]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        output.unlink(missing_ok=True)
        return time.monotonic() - began

    return timed(read, write), timed(read), timed(write)


def run(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """One cold run of the command. Adds the wall seconds of the whole process."""
    forget(source)
    began = time.monotonic()
    command = [sys.executable, "-m", "halfbyte", "quantize", str(source), str(out), "--json"]
    command += ["--max-shard-size", str(SHARD_BYTES), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"wall_seconds": time.monotonic() - began}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gigabytes", type=float, default=4)
    options.add_argument("--folder", type=Path, default=None)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(dir=chosen.folder))
    try:
        size = make_checkpoint(folder / "source", chosen.gigabytes, 6144, 2048, 3)
        warm_up = make_checkpoint(folder / "small", 0.25, 1024, 512, 4)
        small = run(folder / "small", folder / "small-out")
        ours = run(folder / "source", folder / "out")
        shutil.rmtree(folder / "out")
        again = run(folder / "source", folder / "out")
        ours = min(ours, again, key=lambda result: result["wall_seconds"])
        both, read, write = disk_seconds(folder / "source", folder / "disk", ours["bytes_out"])
        random = np.random.default_rng(0)
        weights = [
            (random.standard_normal((2048, 6144), np.float32) * 0.02).astype(ml_dtypes.bfloat16) for _ in range(8)
        ]
        workers = len(os.sched_getaffinity(0))
        encode = gb_per_s(Ours(weights, workers).run, sum(w.nbytes for w in weights), 9)[0]
        theirs = peer("quantize_modelopt.py", "--src", str(folder / "small"), "--dst", str(folder / "theirs"))
    finally:
        shutil.rmtree(folder)
    gigabytes, rate = size / 1e9, size / 1e9 / ours["wall_seconds"]
    limit = min(encode, gigabytes / both)
    rows = [
        ["ours, whole process", f"{ours['wall_seconds']:.1f}", f"{rate:.3f}", ""],
        [
            "disk: read source and write output at once",
            f"{both:.1f}",
            f"{gigabytes / both:.3f}",
            f"{rate * both / gigabytes:.2f}",
        ],
        ["disk: read alone", f"{read:.1f}", f"{gigabytes / read:.3f}", f"{rate * read / gigabytes:.2f}"],
        ["disk: write output alone", f"{write:.1f}", f"{gigabytes / write:.3f}", f"{rate * write / gigabytes:.2f}"],
        ["encoder alone, in memory", f"{gigabytes / encode:.1f}", f"{encode:.3f}", f"{rate / encode:.2f}"],
    ]
    show(f"{gigabytes:.2f} GB of BF16 to {ours['bytes_out'] / 1e9:.2f} GB of NVFP4, cold, {workers} cores",
         ["what", "seconds", "GB/s of source", "ours / this"], rows)  # fmt: skip
    print(f"\nours / min(encode, disk): {rate / limit:.2f}; peak memory {ours['peak_rss_bytes'] / 1e6:.0f} MB")
    print(f"GLM-5.2, {GLM_BYTES / 1e9:.2f} GB, at this rate: {GLM_BYTES / 1e9 / rate / 60:.0f} minutes (extrapolated)")
    if theirs:
        ratio = theirs["seconds"] / small["wall_seconds"]
        rows = [
            ["ours, whole process", f"{small['wall_seconds']:.2f}", f"{small['peak_rss_bytes'] / 1e6:.0f}", "1"],
            [
                "ModelOpt, imports left out",
                f"{theirs['seconds']:.2f}",
                f"{theirs['peak_rss_bytes'] / 1e6:.0f}",
                f"{ratio:.0f}",
            ],
        ]
        show(
            f"the small checkpoint, {warm_up / 1e9:.2f} GB: whole job",
            ["what", "seconds", "peak MB", "times ours"],
            rows,
        )
    record("quantize", {"bytes": size, "ours": ours, "disk_seconds": {"both": both, "read": read, "write": write},
                        "encode_gb_per_s": encode, "small": small, "modelopt": theirs})  # fmt: skip


if __name__ == "__main__":
    main()
