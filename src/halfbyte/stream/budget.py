"""How a memory budget is divided: one layer's weights, bytes read ahead, scratch; the rest is for activations.

The bounds are sums that can be checked by hand; what they leave out (allocator slack, library scratch) is a margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from halfbyte.errors import UsageError, said
from halfbyte.models.architecture import Architecture
from halfbyte.process import rss_bytes
from halfbyte.stream.attention import score_bytes
from halfbyte.stream.contents import Contents
from halfbyte.stream.rows import RESIDENT_BYTES, Place

MIB = 1 << 20
MARGIN = 0.08
EAGER_BYTES = {"cpu": 256 * MIB, "cuda": 2048 * MIB}
AHEAD_BYTES = {"cpu": 512 * MIB, "cuda": 4096 * MIB}
SCORE_COPIES = 4
"""Copies of the scores that eager attention holds at once: scaled, masked, softmax, result."""

SCAN_COPIES = 12
"""Float32 arrays that transformers' Mamba-2 has of a token at once, each with a number for every head and every place
of its chunk, or every number of the state: inputs and outputs of the state by head, decays and products of a chunk."""


@dataclass(frozen=True)
class Placement:
    """ahead_bytes: of the reader. eager_bytes: one copy of scores, beyond it attention is chunked. place: of rows."""

    ahead_bytes: int
    eager_bytes: int
    places: tuple[Place, ...]


def weight_bytes(contents: Contents, dtype: torch.dtype) -> int:
    """Of the largest layer while it runs: everything but its experts, and three experts' worth of matrices."""
    largest = 0
    for layer in contents.layers:
        plain = sum(entry.parameters for entry in layer.plain)
        expert = max((sum(entry.parameters for entry in e) for e in layer.experts), default=0)
        largest = max(largest, (plain + 3 * expert) * dtype.itemsize)
    return largest


def token_bytes(config: Any, dtype: torch.dtype, arch: Architecture) -> int:
    """Temporaries of one token while its sequence goes through attention or an MLP."""
    heads, streams = int(config.num_attention_heads), arch.streams
    head = (getattr(config, "qk_head_dim", None) or 0) + (getattr(config, "v_head_dim", None) or 0)
    head = head or 2 * max(arch.head_dim, arch.sliding_head_dim)
    attention = 4 * heads * head
    scan = 4 * SCAN_COPIES * _scanned(config)
    mlp = 3 * int(getattr(config, "intermediate_size", 0) or 0)
    return (8 * streams * int(config.hidden_size) + max(attention, mlp)) * dtype.itemsize + scan


def _scanned(config: Any) -> int:
    """Numbers of one such array; 0 without Mamba-2."""
    heads = int(getattr(config, "mamba_num_heads", 0) or 0)
    return heads * max(int(getattr(config, "chunk_size", 0) or 0), int(getattr(config, "ssm_state_size", 0) or 0))


def divide(
    contents: Contents,
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    lengths: Sequence[int],
    row_bytes: Sequence[int],
    budget: int | None,
) -> Placement:
    """Where activations lie, and the bounds of the rest.

    row_bytes: bytes of each store of activations, the most often used first. budget: resident bytes of the process,
    None for no bound. On a GPU the stores lie in its memory while they fit.
    Raises UsageError if the budget cannot hold a single layer.
    """
    kind = device.type
    longest = max(lengths, default=0)
    eager = EAGER_BYTES[kind] if budget is None else min(EAGER_BYTES[kind], budget // 32)
    scores = SCORE_COPIES * max(
        (size for size in map(partial(score_bytes, config), lengths) if size <= eager), default=0
    )
    working = weight_bytes(contents, dtype) + longest * token_bytes(config, dtype, contents.roles.arch) + scores
    ahead = AHEAD_BYTES[kind] if budget is None else min(AHEAD_BYTES[kind], budget // 16)
    on_device: list[Place] = []
    if kind == "cuda":
        room = torch.cuda.mem_get_info(device)[0] * (1 - MARGIN) - 2 * working
        on_device = _placed(row_bytes, room, "device")
        working = 0
    rest = row_bytes[len(on_device) :]
    if budget is None:
        in_memory: list[Place] = ["memory"] * len(rest)
        return Placement(ahead, eager, (*on_device, *in_memory))
    needed = rss_bytes() + working + ahead + len(rest) * RESIDENT_BYTES
    room = budget * (1 - MARGIN) - needed
    if room < 0:
        raise UsageError(
            said(
                "{memory_budget} {given:.2f} GB: one layer and sequences of {longest} tokens need {needed:.2f} GB",
                given=budget / 1e9,
                longest=longest,
                needed=needed / (1 - MARGIN) / 1e9,
            ),
            hint=said("raise the budget, or shorten the sequences with {max_length}"),
        )
    in_memory = _placed(rest, room, "memory")
    in_files: list[Place] = ["file"] * (len(rest) - len(in_memory))
    return Placement(ahead, eager, (*on_device, *in_memory, *in_files))


def _placed(sizes: Sequence[int], room: float, place: Place) -> list[Place]:
    """How many of the first stores fit."""
    result: list[Place] = []
    for size in sizes:
        room -= size
        if room < 0:
            break
        result.append(place)
    return result
