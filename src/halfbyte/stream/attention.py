"""Which attention runs which sequence, and how one layer's selection of keys reaches the layers that share it.

Short sequences take transformers' eager attention, bit for bit (its sdpa is wrong for sparse models with a mask). Its
scores grow with the square of the length; beyond a bound, models with an indexer take `modules.attention` and the
others torch's sdpa.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from halfbyte.errors import UsageError, said
from halfbyte.modules.attention import AttentionOptions, install, sparse_attention, uninstall
from halfbyte.modules.attention.indexer import NOTHING, Selection
from halfbyte.stream.skeleton import Skeleton

Mode = Literal["eager", "sdpa", "sparse"]


def score_bytes(config: Any, length: int) -> int:
    """Bytes of one copy of the scores that eager attention makes of a sequence: heads, and heads of the indexer."""
    heads = config.num_attention_heads + (getattr(config, "index_n_heads", 0) or 0)
    return 4 * int(heads) * length * length


def mode_for(skeleton: Skeleton, length: int, eager_bytes: int, asked: str | None) -> Mode:
    """The attention for a sequence of `length`. Raises UsageError if `asked` is not possible for this model, or the
    sequence too long for the only attention that it has."""
    config = skeleton.config
    sparse = sparse_attention(config.model_type) is not None
    possible: list[Mode] = ["eager"]
    if sparse or skeleton.takes_sdpa:
        possible.append("sparse" if sparse else "sdpa")
    if asked is None:
        long = score_bytes(config, length) > eager_bytes
        if long and len(possible) == 1:
            raise UsageError(
                f"a sequence of {length} tokens: {config.model_type} has attention sinks, which transformers knows in "
                f"eager attention alone, and its scores are more than {eager_bytes / 1e9:.2f} GB",
                hint=said("shorten the sequences with {max_length}, or raise {memory_budget}"),
            )
        return possible[long]
    for mode in possible:
        if mode == asked:
            return mode
    raise UsageError(f"attention {asked!r}: {config.model_type} can use {' or '.join(possible)}")


@contextmanager
def using(skeleton: Skeleton, mode: Mode, scratch_bytes: int | None) -> Iterator[None]:
    """Run layers with this attention inside the block."""
    if mode == "sparse":
        install(skeleton.model, AttentionOptions(scratch_bytes=scratch_bytes))
        try:
            yield
        finally:
            uninstall(skeleton.model)
        return
    skeleton.config._attn_implementation = mode
    try:
        yield
    finally:
        skeleton.config._attn_implementation = "eager"


def passed_on(stored: Tensor | None, mode: Mode, shape: Sequence[int], device: torch.device) -> Any:
    """What a layer without an indexer is given. stored: int32 [B, T, top_k]; None where every key is selected.

    shape: (B, T) of the sequences.
    """
    if mode == "sparse":
        return Selection(stored)
    if stored is None:
        return torch.arange(shape[1], dtype=torch.int32, device=device).expand(*shape, shape[1])
    return stored


def indices_of(selection: Any) -> Tensor | None:
    """int32 [B, T, top_k] of what a layer returned; None where every key is selected."""
    return selection.indices if isinstance(selection, Selection) else selection


def visible(indices: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Selected keys of one sequence, the future left out: int32 [T, k], -1 for none. indices: [T, top_k] or None."""
    position = torch.arange(length, dtype=torch.int32, device=device)
    indices = position.expand(length, length) if indices is None else indices
    return torch.where(indices <= position[:, None], indices, NOTHING)
