"""Decoding what others published in: FP8 tiles, INT4 groups, MXFP4 and NVFP4 to float32, on the CPU.

    python -m benchmarks.quantize.decode [--megabytes 64] [--repeats 5] [--workers 2]

In pieces of a megabyte of float32, as the pipeline reads. GB/s are of float32 written, and of packed bytes read. The
peer is torch doing it step by step, as transformers and compressed-tensors do (its result is compared bit by bit);
the limit is filling as many fresh pieces.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.table import record, show
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.catalogue import format_called
from halfbyte.formats.storage import StorageFormat

COLUMNS, ROWS = 2048, 128
BARS = {"fp8-block": 4.0, "mxfp4": 2.0, "int4": 2.0}
"""GB/s that are asked for."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=512, help="Of float32, each pass.")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    pieces = chosen.megabytes // chosen.workers * chosen.workers
    rows, results = [], {}
    with ThreadPoolExecutor(chosen.workers) as pool:

        def seconds(work: Callable[[], Any]) -> float:
            def share() -> None:
                for _ in range(pieces // chosen.workers):
                    work()

            def once() -> float:
                began = time.perf_counter()
                for done in [pool.submit(share) for _ in range(chosen.workers)]:
                    done.result()
                return time.perf_counter() - began

            once()
            return median(once() for _ in range(chosen.repeats))

        limit = seconds(lambda: np.empty((ROWS, COLUMNS), np.float32).fill(1))
        for name in ("fp8-block", "fp8", "mxfp4", "int4", "nvfp4"):
            form, parts, raw = packed(name)
            ours, theirs = form.decode(parts, raw), {part: torch.from_numpy(one) for part, one in raw.items()}
            assert np.array_equal(ours, form.decode_torch(parts, theirs, torch.float32).numpy())
            mine = seconds(partial(form.decode, parts, raw))
            peer = seconds(partial(form.decode_torch, parts, theirs, torch.float32))
            written, read = 4 * ROWS * COLUMNS * pieces, sum(map(len, raw.values())) * pieces
            rows.append(
                [
                    name,
                    f"{written / peer / 1e9:.2f}",
                    f"{written / mine / 1e9:.2f}",
                    f"{read / mine / 1e9:.2f}",
                    f"{BARS[name]:.0f}" if name in BARS else "",
                    f"{written / limit / 1e9:.1f}",
                    f"{limit / mine:.2f}",
                ]
            )
            results[name] = {"seconds": mine, "peer_seconds": peer, "written_bytes": written, "read_bytes": read}
    columns = ["format", "torch, GB/s written", "ours, GB/s written", "ours, GB/s read", "bar", "limit", "ratio"]
    show(f"{chosen.workers} threads", columns, rows)
    record("decode", {"workers": chosen.workers, "limit_seconds": limit, "formats": results})


def packed(name: str) -> tuple[StorageFormat, dict[str, Tensor], dict[str, Any]]:
    """A matrix [ROWS, COLUMNS] of random bytes that are numbers."""
    form, random = format_called(name), np.random.default_rng(0)
    layouts: dict[str, dict[str, tuple[str, int, int]]] = {
        "fp8-block": {"weight": ("F8_E4M3", 1, 1), "weight_scale_inv": ("F32", 128, 128)},
        "fp8": {"weight": ("F8_E4M3", 1, 1), "weight_scale": ("F32", 1, COLUMNS)},
        "mxfp4": {"weight_packed": ("U8", 1, 2), "weight_scale": ("U8", 1, 32)},
        "int4": {"weight_packed": ("I32", 1, 8), "weight_scale": ("BF16", 1, 32)},
        "nvfp4": {"weight": ("U8", 1, 2), "weight_scale": ("F8_E4M3", 1, 16), "weight_scale_2": ("F32", 0, 0)},
    }
    sizes = {"F8_E4M3": 1, "U8": 1, "I32": 4, "BF16": 2, "F32": 4}
    parts, raw = {}, {}
    for part, (dtype, tall, wide) in layouts[name].items():
        shape = (ROWS // tall, COLUMNS // wide) if tall else ()
        size = sizes[dtype] * int(np.prod(shape))
        parts[part] = Tensor(f"m.{part}", "shard", dtype, shape, 0, size)
        content = random.integers(0, 120, size, np.uint8)  # E4M3 from 0x7F is NaN, E8M0 255
        if dtype == "F32":
            content = (random.random(size // 4, np.float32) + 0.5).view(np.uint8)
        elif dtype == "BF16":
            content = (random.random(size // 2, np.float32) + 0.5).view(np.uint16)[1::2].copy().view(np.uint8)
        raw[part] = content
    return form, parts, raw


if __name__ == "__main__":
    main()
