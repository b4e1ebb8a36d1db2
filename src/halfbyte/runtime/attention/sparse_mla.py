"""Multi-head latent attention on the latents themselves, over the selected tokens only.

kv_b_proj would expand a latent c (512 numbers) to each head's key and value. Instead its key half is absorbed into the
query and its value half into the output (DeepSeek-V2, section 2.1.2, appendix C):

    q_nope . (W_UK c) = (q_nope W_UK) . c          sum_t p_t (W_UV c_t) = W_UV (sum_t p_t c_t)

so that one gathered row of 576 numbers (c and the rotary key) serves all heads. Per query and head that is
top_k * (576 + 512) multiplications and, for all heads together, top_k rows to read, whatever the length of the context.
"""

from dataclasses import dataclass

import torch


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
