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


def attend_dense(query: torch.Tensor, latents: torch.Tensor, hidden: torch.Tensor | None, scaling: float, rank: int):  # type: ignore[no-untyped-def]
    """placeholder"""
