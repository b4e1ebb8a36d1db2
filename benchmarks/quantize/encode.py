"""Encoding BF16 to NVFP4 on the CPU: ours against ModelOpt and compressed-tensors, same tensors, same machine, one run.

    python -m benchmarks.quantize.encode [--matrices 16] [--sweep]

Ours includes amax, tables and the measurement of the error; outputs are preallocated, as in the pipeline. The packed
bytes of every matrix are compared with ModelOpt's before a time is printed. Ceilings: reading and copying the same
bytes with the same threads. --sweep times the sweep alone, with its bytes checked against the reference, by elapsed and
by processor time: the latter is what a machine that others load gives.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.table import peer, record, show
from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.shard import Shard
from halfbyte.formats.nvfp4 import reference
from halfbyte.formats.nvfp4.codec import Encoder, Rounding, amax, decode, encode
from halfbyte.formats.nvfp4.reference import Encoded, scale_2_of

SHAPE = (2048, 6144)
CHUNK_ROWS = 85  # about 1 MB, as the pipeline reads


class Ours:
    """Encodes all matrices with preallocated outputs, one thread per matrix at a time."""

    def __init__(
        self,
        weights: list[np.ndarray],
        workers: int,
        rounding: Rounding = "max",
        importance: np.ndarray | None = None,
    ) -> None:
        self.weights, self.pool, self.rounding = weights, ThreadPoolExecutor(workers), rounding
        self.importance = importance
        self.codes = [np.empty((w.shape[0], w.shape[1] // 2), np.uint8) for w in weights]
        self.scales = [np.empty((w.shape[0], w.shape[1] // 16), np.uint8) for w in weights]
        self.scale_2 = [np.float32(0)] * len(weights)

    def run(self) -> None:
        list(self.pool.map(self._one, range(len(self.weights))))

    def _one(self, i: int) -> None:
        weight = self.weights[i]
        parts = [slice(row, row + CHUNK_ROWS) for row in range(0, len(weight), CHUNK_ROWS)]
        self.scale_2[i] = scale_2_of(max(amax(weight[part]) for part in parts), self.rounding)
        encoder = Encoder(self.scale_2[i], self.rounding, self.importance)
        for part in parts:
            encoder.encode_into(weight[part], self.codes[i][part], self.scales[i][part])


def gb_per_s(
    run: Callable[[], Any], size_bytes: int, repeat: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Median, slowest and fastest rate after one warm-up."""
    run()
    seconds = []
    for _ in range(repeat):
        began = clock()
        run()
        seconds.append(clock() - began)
    gigabytes = size_bytes / 1e9
    return gigabytes / median(seconds), gigabytes / max(seconds), gigabytes / min(seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--matrices", type=int, default=16)
    options.add_argument("--repeat", type=int, default=9)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--sweep", action="store_true", help="time the sweep alone")
    chosen = options.parse_args()
    random = np.random.default_rng(0)
    floats = [random.standard_normal(SHAPE, np.float32) * np.float32(0.02) for _ in range(chosen.matrices)]
    weights = [w.astype(ml_dtypes.bfloat16) for w in floats]
    size = sum(w.nbytes for w in weights)
    if chosen.sweep:
        sweep(weights, floats, chosen.workers, chosen.repeat)
        return
    rates: dict[str, tuple[float, float, float]] = {}
    ours = Ours(weights, chosen.workers)
    rates["ours, max"] = gb_per_s(ours.run, size, chosen.repeat)
    peers = {}
    with tempfile.TemporaryDirectory() as folder:
        source, packed = Path(folder) / "source.safetensors", Path(folder) / "packed.safetensors"
        write(source, weights)
        peers["ModelOpt"] = peer("encode_modelopt.py", "--input", str(source), "--repeat", "3", "--save", str(packed))
        peers["compressed-tensors"] = peer("encode_compressed_tensors.py", "--input", str(source), "--repeat", "3")
        if peers["ModelOpt"]:
            compare(packed, ours)
    rates["ours, sweep"] = gb_per_s(Ours(weights, chosen.workers, "sweep").run, size, 3)
    rates["ours, max, one thread"] = gb_per_s(Ours(weights, 1).run, size, chosen.repeat)
    rates["ours, max, float32 source"] = gb_per_s(Ours(floats, chosen.workers).run, 2 * size, 3)
    encoded = [Encoded(*parts) for parts in zip(ours.codes, ours.scales, ours.scale_2, strict=True)]
    rates["ours, decode to float32"] = gb_per_s(lambda: [decode(e, chosen.workers) for e in encoded], size, 3)
    pool, copies = ThreadPoolExecutor(chosen.workers), [np.empty_like(w) for w in weights]
    rates["memory read (amax only)"] = gb_per_s(lambda: list(pool.map(amax, weights)), size, chosen.repeat)
    rates["memory copy"] = gb_per_s(lambda: list(pool.map(np.copyto, copies, weights)), size, chosen.repeat)
    best = rates["ours, max"][0]
    rows = [[name, f"{m:.2f}", f"{low:.2f} to {high:.2f}", f"{best / m:.2f}"] for name, (m, low, high) in rates.items()]
    for name, found in peers.items():
        if found:
            rate = found["gb_per_s_median"]
            rows.append([f"{name} {found['version']}", f"{rate:.3f}", "", f"{best / rate:.0f}"])
    show(f"{size / 1e9:.2f} GB of BF16, {chosen.matrices} matrices {list(SHAPE)}, {chosen.workers} threads",
         ["what", "GB/s of BF16", "spread", "ours / this"], rows)  # fmt: skip
    record("encode", {"bytes": size, "workers": chosen.workers, "gb_per_s": rates, "peers": peers})


def sweep(weights: list[np.ndarray], floats: list[np.ndarray], workers: int, repeat: int) -> None:
    """Rates of the sweep: two threads by the clock, and one thread per second of processor time."""
    size = sum(w.nbytes for w in weights)
    importance = np.random.default_rng(1).lognormal(0, 1, SHAPE[1]).astype(np.float32)
    rates, rows = {}, []
    for name, source, weighted in (
        ("BF16", weights, None),
        ("BF16, activation-weighted", weights, importance),
        ("float32 source", floats, None),
    ):
        check_sweep(source[0], weighted)
        parallel = gb_per_s(Ours(source, workers, "sweep", weighted).run, size, repeat)
        alone = gb_per_s(Ours(source[:2], 1, "sweep", weighted).run, size * 2 // len(source), repeat, time.process_time)
        rates[name] = {"workers": workers, "elapsed": parallel, "processor_one_thread": alone}
        rows.append([name] + [f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in (parallel, alone)])
    title = (
        f"sweep, {len(weights)} matrices {list(SHAPE)}, GB of weights as BF16 per second: median (slowest to fastest)"
    )
    show(title, ["source", f"{workers} threads, elapsed", "one thread, processor time"], rows)
    record("encode_sweep", {"matrices": len(weights), "repeat": repeat, "gb_per_s": rates})


def check_sweep(weight: np.ndarray, importance: np.ndarray | None) -> None:
    """Refuse to time bytes that differ from the reference's."""
    part = weight[:64]
    wanted = reference.encode(part, rounding="sweep", importance=importance)
    found, _ = encode(part, rounding="sweep", importance=importance)
    if not ((found.codes == wanted.codes).all() and (found.scales == wanted.scales).all()):
        raise SystemExit("the sweep's bytes differ from the reference's; no time is worth printing")


def write(path: Path, weights: list[np.ndarray]) -> None:
    with open(path, "wb") as file:
        entries = [(f"w{i:02d}", "BF16", w.shape, w.nbytes) for i, w in enumerate(weights)]
        file.write(serialize_header(entries, {}))
        for weight in weights:
            file.write(weight.tobytes())


def compare(packed: Path, ours: Ours) -> None:
    """Every byte of ours against what ModelOpt saved."""
    shard = Shard(packed)
    tensors = shard.header().tensors

    def read(name: str) -> bytes:
        buffer = bytearray(tensors[name].bytes)
        shard.read_into(memoryview(buffer), tensors[name].start)
        return bytes(buffer)

    for i in range(len(ours.weights)):
        wanted = (ours.codes[i].tobytes(), ours.scales[i].tobytes(), ours.scale_2[i].tobytes())
        if (read(f"w{i:02d}.weight"), read(f"w{i:02d}.weight_scale"), read(f"w{i:02d}.weight_scale_2")) != wanted:
            raise SystemExit(f"matrix {i}: bytes differ from ModelOpt's; no time is worth printing")
    print(f"{len(ours.weights)} matrices: codes, scales and weight_scale_2 equal ModelOpt's, byte for byte")


if __name__ == "__main__":
    main()
