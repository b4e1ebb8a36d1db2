"""Multi-head latent attention on the latents themselves, over the selected tokens only.

kv_b_proj would expand a latent c (512 numbers) to each head's key and value. Instead its key half is absorbed into the
query and its value half into the output (DeepSeek-V2, section 2.1.2, appendix C):

    q_nope . (W_UK c) = (q_nope W_UK) . c          sum_t p_t (W_UV c_t) = W_UV (sum_t p_t c_t)

so that one gathered row of 576 numbers (c and the rotary key) serves all heads. Per query and head that is
top_k * (576 + 512) multiplications and, for all heads together, top_k rows to read, whatever the length of the context.
"""

from dataclasses import dataclass

import torch

from halfbyte.modules.attention.indexer import Selection
from halfbyte.modules.attention.options import AttentionOptions
from halfbyte.modules.attention.visibility import Visibility


@dataclass(frozen=True)
class Absorbed:
    """kv_b_proj seen as its halves, both views. key: [H, nope, kv_lora_rank]; value: [H, v_head_dim, kv_lora_rank]."""

    key: torch.Tensor
    value: torch.Tensor

    @classmethod
    def of(cls, kv_b_weight: torch.Tensor, nope: int, v_head_dim: int) -> "Absorbed":
        """kv_b_weight: [H * (nope + v_head_dim), kv_lora_rank]."""
        heads = kv_b_weight.view(-1, nope + v_head_dim, kv_b_weight.shape[-1])
        return cls(heads[:, :nope], heads[:, nope:])

    def query(self, q_nope: torch.Tensor, q_rot: torch.Tensor) -> torch.Tensor:
        """q_nope [B, S, H, nope], q_rot [B, S, H, rope] -> [B, S, H, kv_lora_rank + rope], to meet a latent row."""
        return torch.cat([torch.einsum("bshn,hnl->bshl", q_nope, self.key), q_rot], dim=-1)

    def output(self, mixed: torch.Tensor) -> torch.Tensor:
        """Mixed latents [B, S, H, kv_lora_rank] -> heads' outputs [B, S, H, v_head_dim]."""
        return torch.einsum("bshl,hvl->bshv", mixed, self.value)


def attend(
    query: torch.Tensor,
    queries: range,
    latents: torch.Tensor,
    past: int,
    visibility: Visibility,
    selection: Selection,
    scaling: float,
    rank: int,
    options: AttentionOptions,
) -> torch.Tensor:
    """Attention over the selection in chunks, dense while the context is short, gathered after that.

    query: absorbed, [B, S', H, R], for the positions `queries` of this call; latents [B, T, R], T = past + all of the
    call's tokens. Returns mixed latents [B, S', H, rank]. Scratch: options.scratch_bytes.
    """
    batch, _, heads, _ = query.shape
    mixed = query.new_empty(*query.shape[:3], rank)
    number = latents.element_size()
    per_key = heads * (2 * number + 4)  # scores, weights in float32, weights
    gather_from, top_k = queries.stop, 0  # the first query that gathers
    if selection.indices is not None:
        top_k = selection.indices.shape[-1]
        gather_from = int(options.dense_factor * top_k) - past
    start = queries.start
    while start < queries.stop:
        if start < gather_from:
            limit = min(queries.stop, gather_from)
            bytes_per_query = (past + limit) * (per_key + 2)
        else:
            limit = queries.stop
            bytes_per_query = top_k * (latents.shape[-1] * number + per_key)
        stop = min(start + options.queries(batch * bytes_per_query, query.device), limit)
        part = slice(start - queries.start, stop - queries.start)
        slots = None if selection.indices is None else selection.indices[:, start:stop]
        if slots is not None and start >= gather_from:
            mixed[:, part] = attend_gathered(query[:, part], latents, slots, scaling, rank)
        else:
            num_keys = past + stop  # what lies behind is the future of the whole chunk
            hidden = visibility.hidden(range(start, stop), past, range(num_keys), query.device)
            hidden = _with_unselected(hidden, slots, num_keys)
            mixed[:, part] = attend_dense(query[:, part], latents[:, :num_keys], hidden, scaling, rank)
        start = stop
    return mixed


def _with_unselected(hidden: torch.Tensor | None, slots: torch.Tensor | None, num_keys: int) -> torch.Tensor | None:
    """Hide also what is not selected, bool [B, S', num_keys]; slots int32 [B, S', top_k] or None for everything."""
    if slots is None or num_keys <= slots.shape[-1]:
        return hidden
    # A query without top_k visible slots has negative entries, and slot 0 stands in for them: such a query selects all
    # that it sees, so slot 0 is selected anyway or hidden anyway.
    chosen = torch.zeros(*slots.shape[:2], num_keys, dtype=torch.bool, device=slots.device)
    chosen.scatter_(-1, slots.clamp(min=0).long(), True)
    return ~chosen if hidden is None else hidden | ~chosen


def attend_dense(
    query: torch.Tensor, latents: torch.Tensor, hidden: torch.Tensor | None, scaling: float, rank: int
) -> torch.Tensor:
    """Attention over all of some slots, what is not wanted masked: for few slots.

    query [B, S, H, R]; latents [B, T, R], their first `rank` numbers the value; hidden bool [B or 1, S, T] or None.
    Returns [B, S, H, rank]. Scratch: B * S * H * T scores twice.
    """
    batch, count, heads, width = query.shape
    scores = torch.matmul(query.reshape(batch, count * heads, width), latents.transpose(1, 2))
    scores = scores.view(batch, count, heads, -1).mul_(scaling)
    if hidden is not None:
        scores.masked_fill_(hidden[:, :, None], torch.finfo(scores.dtype).min)
    weights = _softmax(scores).view(batch, count * heads, -1)
    return torch.matmul(weights, latents[..., :rank]).view(batch, count, heads, rank)


def attend_gathered(
    query: torch.Tensor, latents: torch.Tensor, slots: torch.Tensor, scaling: float, rank: int
) -> torch.Tensor:
    """Attention over each query's own selected slots: cost and scratch do not depend on T.

    query [B, S, H, R]; latents [B, T, R]; slots int32 [B, S, top_k], negative where there is none.
    Returns [B, S, H, rank]. Scratch: B * S * top_k * R gathered numbers, and B * S * H * top_k scores twice.
    """
    batch, count, top_k = slots.shape
    chosen = latents.new_empty(batch, count * top_k, latents.shape[-1])
    rows = slots.clamp(min=0).view(batch, -1)
    for b in range(batch):  # whole rows are copied; torch.gather would want an index per number
        torch.index_select(latents[b], 0, rows[b], out=chosen[b])
    chosen = chosen.view(batch, count, top_k, -1)
    scores = torch.matmul(query, chosen.transpose(-1, -2)).mul_(scaling)
    scores.masked_fill_((slots < 0)[:, :, None], torch.finfo(scores.dtype).min)
    return torch.matmul(_softmax(scores), chosen[..., :rank])


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, in float32, as transformers' `eager_attention_forward`.

    A query that sees nothing (padding) has finite minima only and gets equal weights, never NaN, which would reach
    real tokens as 0 * NaN.
    """
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
