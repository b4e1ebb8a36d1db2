"""Triton kernels for what lies between humming's GEMMs: sorting rows by expert, SiLU(gate) * up, the weighted sum.

Each is one launch where torch would take several; at one token per step launches are a third of the layer's time. None
of them waits for the GPU, so the whole layer can be captured in a CUDA graph.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _count_and_place(
    ids, counts, starts, block_experts, padded_rows, rows, blocks, E: tl.constexpr, POW: tl.constexpr,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """One program: rows per expert, the padded start of each expert's run, and the expert of each block of rows."""
    expert = tl.arange(0, POW)
    total = tl.zeros([POW], tl.int32)
    for at in range(0, CHUNKS):
        offsets = at * CHUNK + tl.arange(0, CHUNK)
        chunk = tl.load(ids + offsets, mask=offsets < rows, other=POW - 1).to(tl.int32)
        total += tl.histogram(tl.minimum(chunk, POW - 1), POW)
    total = tl.where(expert < E, total, 0)  # indices beyond the experts, and the padding of a chunk, go nowhere
    padded = (total + BLOCK - 1) // BLOCK * BLOCK
    ends = tl.cumsum(padded, 0)
    tl.store(counts + expert, tl.zeros([POW], tl.int32))
    tl.store(starts + expert, ends - padded)
    tl.store(padded_rows, tl.sum(padded, 0))
    for at in range(0, BLOCK_CHUNKS):
        block = at * 16 + tl.arange(0, 16)
        owner = tl.sum((ends[None, :] <= (block * BLOCK)[:, None]).to(tl.int32), 1)
        tl.store(block_experts + block, tl.minimum(owner, E - 1), mask=block < blocks)


@triton.jit  # type: ignore[untyped-decorator]
def _scatter_rows(ids, counts, starts, sorted_ids, rows, E: tl.constexpr, CHUNK: tl.constexpr) -> None:
    row = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    expert = tl.load(ids + row, mask=row < rows, other=E).to(tl.int32)
    valid = (row < rows) & (expert < E)
    place = tl.atomic_add(counts + expert, 1, mask=valid)
    start = tl.load(starts + expert, mask=valid, other=0)
    tl.store(sorted_ids + start + place, row, mask=valid)


def align(top_k_index: Tensor, num_experts: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the flat (token, choice) list, sorted by expert, each expert's run padded to a multiple of `block`.

    top_k_index: integers [M, k] on CUDA. Returns int32 sorted_ids (padding holds M * k), expert_ids (one per block) and
    num_tokens_padded [1], as humming's indexed GEMM wants them. The order within a run is not fixed, and need not be:
    each row's product is written to the row's own place.
    """
    ids = top_k_index.reshape(-1)
    rows = ids.numel()
    blocks = min(rows, num_experts) + rows // block
    pow2 = triton.next_power_of_2(num_experts + 1)
    sorted_ids = ids.new_full((blocks * block,), rows, dtype=torch.int32)
    work = ids.new_empty((2 * pow2 + blocks + 1,), dtype=torch.int32)
    counts, starts, expert_ids, padded = work.split([pow2, pow2, blocks, 1])
    # loop counts are compile-time constants, so they are powers of two: a few kernels serve every batch size
    chunks, block_chunks = (triton.next_power_of_2(triton.cdiv(n, size)) for n, size in ((rows, 1024), (blocks, 16)))
    _count_and_place[(1,)](
        ids, counts, starts, expert_ids, padded, rows, blocks, num_experts, pow2, block, 1024, chunks, block_chunks
    )
    _scatter_rows[(triton.cdiv(rows, 256),)](ids, counts, starts, sorted_ids, rows, num_experts, 256)
    return sorted_ids, expert_ids, padded


@triton.jit  # type: ignore[untyped-decorator]
def _silu_mul(source, result, width, CHUNK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    inside = column < width
    gate = tl.load(source + row * 2 * width + column, mask=inside).to(tl.float32)
    up = tl.load(source + row * 2 * width + width + column, mask=inside).to(tl.float32)
    tl.store(result + row * width + column, gate * tl.sigmoid(gate) * up, mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """[rows, 2I] (gate, then up), contiguous -> SiLU(gate) * up [rows, I], rounded once."""
    rows, double = gate_up.shape
    result = gate_up.new_empty((rows, double // 2))
    if rows:
        chunk = min(1024, triton.next_power_of_2(double // 2))
        _silu_mul[(rows, triton.cdiv(double // 2, chunk))](gate_up, result, double // 2, chunk)
    return result


@triton.jit  # type: ignore[untyped-decorator]
def _weighted_sum(
    rows, position, weights, result, width, K: tl.constexpr, MOVED: tl.constexpr, CHUNK: tl.constexpr
) -> None:
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    inside = column < width
    total = tl.zeros([CHUNK], tl.float32)
    for choice in tl.static_range(K):
        row = token * K + choice
        weight = tl.load(weights + row).to(tl.float32)
        if MOVED:
            row = tl.load(position + row).to(tl.int64)
        value = tl.load(rows + row * width + column, mask=inside, other=0.0).to(tl.float32)
        total += weight * value
    tl.store(result + token * width + column, total, mask=inside)


def weighted_sum(rows: Tensor, top_k_weights: Tensor, position: Tensor | None = None) -> Tensor:
    """rows [M*k, H] -> [M, H], each token's k rows times its weights, added in float32 in the order of choice.

    position: where the row of each flat (token, choice) lies; None if they lie in that order.
    """
    tokens, choices = top_k_weights.shape
    result = rows.new_empty((tokens, rows.shape[1]))
    chunk = min(1024, triton.next_power_of_2(rows.shape[1]))
    grid: Any = (tokens, triton.cdiv(rows.shape[1], chunk))
    where = rows if position is None else position
    if tokens:
        _weighted_sum[grid](
            rows, where, top_k_weights.contiguous(), result, rows.shape[1], choices, position is not None, chunk
        )
    return result
