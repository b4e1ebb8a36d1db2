"""Packed matrices times activations on a CPU: tiles of a matrix are decoded into second-level cache and multiplied.

A task is one tile of one expert: threads take tasks as they come, each decodes into its own scratch (numba, without the
GIL) and calls a single-threaded GEMM on it. So a tile is read back while it is still in cache, and few experts with
many rows keep all cores as busy as many with few. In decode, with hardly a row for each expert, the same threads
multiply straight from the packed bytes.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from halfbyte.formats.nvfp4 import torch as values
from halfbyte.runtime.backends.reference import per_row
from halfbyte.runtime.packed import Matrices

TILE_BYTES = 2**19
"""Scratch of one thread: half of a second-level cache of 1 MB. Measured flat from 2**18 to 2**20 on a Zen 5 core."""


FEW_ROWS = 16
"""Up to as many rows in all, each is multiplied straight from the packed bytes, which are then read once for each."""


class Task(NamedTuple):
    """Rows `rows` of x times matrix `expert`'s rows `tile`, all of which share `scale_2`."""

    expert: int
    rows: slice
    tile: slice
    scale_2: np.float32


def linear(x: Tensor, matrices: Matrices, scale: Tensor | None) -> Tensor:
    """x [M, K] times one packed matrix [N, K] -> float32 [M, N]. scale: as in `grouped`."""
    stack = Matrices(matrices.codes[None], matrices.scales[None], matrices.scale_2[None])
    return grouped(x, stack, torch.tensor([len(x)]), scale)


def grouped(x: Tensor, matrices: Matrices, counts: Tensor, scale: Tensor | None) -> Tensor:
    """Rows sorted by expert times each expert's matrix.

    x: [rows, K], the first counts[0] rows for expert 0 and so on. scale: round x to NVFP4 with it first (float32 []).
    Returns float32 [rows, N]; rows of no expert are zero. Computed in float32 the operands are the dequantized
    values themselves, so results equal those of a dequantized model; in bfloat16 they are exact without their
    tensor-wide scales, which then multiply the result.
    """
    dtype, few = compute_dtype(x.dtype), len(x) <= FEW_ROWS
    if dtype == torch.float32 or few:
        x = x.float() if scale is None else values.fake_quantized(x, scale)
        return _multiply(x, matrices, counts.tolist(), few)
    x = x.to(dtype) if scale is None else values.quantized_activations(x.to(dtype), scale)
    result = _multiply(x, matrices, counts.tolist(), few=False)
    factors = per_row(matrices) if scale is None else per_row(matrices) * scale
    start = 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            result[start : start + count] *= factors[expert]
        start += count
    return result


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """bfloat16 for bfloat16 on a CPU that multiplies it; elsewhere float32 is both exact and faster."""
    supported = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if supported else torch.float32


def _multiply(x: Tensor, matrices: Matrices, counts: list[int], few: bool) -> Tensor:
    from halfbyte.runtime.backends import decode, dot  # numba and LLVM, which a GPU does without

    codes, scales, _ = matrices
    x = x.contiguous()
    rows, columns = codes.shape[1], 2 * codes.shape[2]
    scale_2 = matrices.scale_2.view(len(codes), -1).numpy()
    part = rows // scale_2.shape[1]
    result = torch.zeros((len(x), rows), dtype=torch.float32)
    tile_bytes = TILE_BYTES * 8 if few else TILE_BYTES  # without scratch a tile only has to be worth its call
    height = min(part, max(16, tile_bytes // (columns * x.dtype.itemsize) // 16 * 16))
    tasks = []
    start = 0
    for expert, count in enumerate(counts):
        if count:
            span = slice(start, start + count)
            for number, scale in enumerate(scale_2[expert]):
                end = (number + 1) * part
                tasks += [
                    Task(expert, span, slice(a, min(a + height, end)), scale) for a in range(number * part, end, height)
                ]
        start += count
    raw_codes, raw_scales = codes.numpy(), scales.view(torch.uint8).numpy()

    def dots(task: Task) -> None:
        expert, span, tile, scale = task
        for row in range(span.start, span.stop):
            dot.matrix_times_row(
                raw_codes[expert, tile], raw_scales[expert, tile], scale, raw_x[row], raw_result[row, tile]
            )

    def work(task: Task) -> None:
        expert, span, tile, scale = task
        scratch = _scratch((tile.stop - tile.start) * columns, x.dtype)
        decode.decode_into(raw_codes[expert, tile], raw_scales[expert, tile], scale, scratch)
        product = torch.mm(x[span], scratch.view(-1, columns).t())
        result[span, tile] = product

    if few:
        raw_x, raw_result = x.numpy(), result.numpy()
        _run(dots, tasks)
    else:
        _run(work, tasks)
    return result


_local = threading.local()


def _scratch(elements: int, dtype: torch.dtype) -> Tensor:
    """This thread's scratch, grown as needed."""
    held: dict[torch.dtype, Tensor] = _local.__dict__.setdefault("scratch", {})
    if dtype not in held or held[dtype].numel() < elements:
        held[dtype] = torch.empty(max(elements, TILE_BYTES // dtype.itemsize), dtype=dtype)
    return held[dtype][:elements]


def _run(work: Callable[[Task], None], tasks: list[Task]) -> None:
    """Do all tasks, on as many threads as torch uses; the caller is one of them."""
    workers = torch.get_num_threads()
    if workers == 1 or len(tasks) == 1:
        for task in tasks:
            work(task)
        return
    remaining = iter(tasks)
    lock = threading.Lock()

    @torch.inference_mode()  # of the thread, and the result may be the caller's inference tensor
    def drain() -> None:
        while True:
            with lock:
                task = next(remaining, None)
            if task is None:
                return
            work(task)

    helpers = [_pool(workers - 1).submit(drain) for _ in range(workers - 1)]
    torch.set_num_threads(1)
    try:
        drain()
    finally:
        torch.set_num_threads(workers)
    for helper in helpers:
        helper.result()


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    """Threads whose own torch operations use one core: the setting is per thread."""
    return ThreadPoolExecutor(helpers, "nvfp4", initializer=torch.set_num_threads, initargs=(1,))
