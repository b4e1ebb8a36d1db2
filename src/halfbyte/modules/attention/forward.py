"""The forward pass of one sparse attention layer, put in the place of transformers' `GlmMoeDsaAttention.forward`.

    hidden states -> latents (cached)  -> index keys (cached, full layers) -> selection
                  -> per chunk of queries: heads' queries, absorbed -> attention over the selected latents -> output

Everything that is larger than the hidden states exists for one chunk of queries only.
"""

from typing import Any

import torch

from halfbyte.errors import UnsupportedError
from halfbyte.models.family import SparseAttention
from halfbyte.modules.attention.indexer import IndexQueries, Selection, select
from halfbyte.modules.attention.latent_cache import LatentLayer
from halfbyte.modules.attention.options import AttentionOptions
from halfbyte.modules.attention.rotary import Rotate, rotate_first, rotate_halves, rotate_interleaved
from halfbyte.modules.attention.sparse_mla import Absorbed, attend
from halfbyte.modules.attention.visibility import Visibility

ROTATIONS: dict[str, Rotate] = {"interleaved": rotate_interleaved, "halves": rotate_halves}


class SparseForward:
    """Callable in the place of `module.forward`; holds no weights, so state dicts and saved files are as before."""

    def __init__(self, module: Any, sparse: SparseAttention, options: AttentionOptions) -> None:
        self.module, self.shares, self.options = module, sparse.shares, options
        self.index_rotate = ROTATIONS[sparse.index_rotation]
        self.latent_width: int = module.kv_lora_rank + module.qk_rope_head_dim

    def __call__(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: Visibility | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        prev_topk_indices: Selection | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """hidden_states [B, S, hidden] -> output [B, S, hidden], None for weights, and the selection if shared."""
        if not isinstance(attention_mask, Visibility):
            raise UnsupportedError(
                "sparse attention was called outside of its model",
                hint="call the model that install() was given, not one of its layers",
            )
        visibility = attention_mask.to(hidden_states.device)
        layer = LatentLayer() if past_key_values is None else past_key_values.layers[self.module.layer_idx]
        past = layer.get_seq_length()
        latents = layer.append(self._latents(hidden_states, *position_embeddings))
        q_residual = self.module.q_a_layernorm(self.module.q_a_proj(hidden_states))
        indexer = getattr(self.module, "indexer", None)
        if indexer is not None:
            index_keys = layer.append_index_keys(self._index_keys(hidden_states, *position_embeddings))
            index = self._index_queries(hidden_states, q_residual, *position_embeddings)
            selection = select(index, index_keys, past, visibility, indexer.index_topk, self.options)
        elif prev_topk_indices is None:
            raise UnsupportedError(f"layer {self.module.layer_idx} shares a selection, but no layer before it selects")
        else:
            selection = prev_topk_indices.to(hidden_states.device)
        output = self._attend(q_residual, position_embeddings, latents, past, visibility, selection)
        return (output, None, selection) if self.shares else (output, None)

    def _latents(self, hidden_states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Normed latent and rotated key part of each token, side by side: [B, S, kv_lora_rank + qk_rope_head_dim]."""
        compressed = self.module.kv_a_proj_with_mqa(hidden_states)
        latent, key = compressed.split([self.module.kv_lora_rank, self.module.qk_rope_head_dim], dim=-1)
        return torch.cat([self.module.kv_a_layernorm(latent), rotate_interleaved(key, cos, sin)], dim=-1)

    def _index_keys(self, hidden_states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[B, S, index_head_dim], one key for all index heads."""
        indexer = self.module.indexer
        keys = indexer.k_norm(indexer.wk(hidden_states))
        return rotate_first(keys, indexer.qk_rope_head_dim, self.index_rotate, cos, sin)

    def _index_queries(
        self, hidden_states: torch.Tensor, q_residual: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> IndexQueries:
        """Queries and head weights of the indexer; weights_proj may be float32 in a bfloat16 model."""
        indexer = self.module.indexer
        q = indexer.wq_b(q_residual).view(*q_residual.shape[:2], indexer.n_heads, indexer.head_dim)
        q = rotate_first(q, indexer.qk_rope_head_dim, self.index_rotate, cos.unsqueeze(-2), sin.unsqueeze(-2))
        weights = indexer.weights_proj(hidden_states.to(indexer.weights_proj.weight.dtype)).float()
        return IndexQueries(q, weights * indexer.n_heads**-0.5, indexer.softmax_scale)

    def _attend(
        self,
        q_residual: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        latents: torch.Tensor,
        past: int,
        visibility: Visibility,
        selection: Selection,
    ) -> torch.Tensor:
        """Attention and output projection, chunk by chunk: [B, S, hidden]."""
        module = self.module
        absorbed = Absorbed.of(module.kv_b_proj.weight, module.qk_nope_head_dim, module.v_head_dim)
        batch, num_queries, _ = q_residual.shape
        output = torch.empty(
            batch, num_queries, module.o_proj.weight.shape[0], dtype=latents.dtype, device=latents.device
        )
        bytes_per_query = 4 * batch * module.num_heads * self.latent_width * latents.element_size()
        step = self.options.queries(bytes_per_query, latents.device)
        for start in range(0, num_queries, step):
            queries = range(start, min(start + step, num_queries))
            rows = slice(queries.start, queries.stop)
            cos, sin = (x[:, rows].unsqueeze(-2) for x in position_embeddings)
            q = module.q_b_proj(q_residual[:, rows]).view(batch, len(queries), -1, module.qk_head_dim)
            q_nope, q_rot = q.split([module.qk_nope_head_dim, module.qk_rope_head_dim], dim=-1)
            query = absorbed.query(q_nope, rotate_interleaved(q_rot, cos, sin))
            mixed = attend(
                query, queries, latents, past, visibility, selection, module.scaling, module.kv_lora_rank, self.options
            )
            output[:, rows] = module.o_proj(absorbed.output(mixed).flatten(2))
        return output


def why_not(module: Any) -> str | None:
    """What keeps this forward from replacing a module's; None when nothing does."""
    parts = ("q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj")
    for part in parts:
        if not hasattr(module, part):
            return f"has no {part}"
    weight = getattr(module.kv_b_proj, "weight", None)
    wanted = (module.num_heads * (module.qk_nope_head_dim + module.v_head_dim), module.kv_lora_rank)
    if weight is None or tuple(weight.shape) != wanted or not weight.is_floating_point() or weight.element_size() < 2:
        return f"has a packed kv_b_proj; absorbing it needs a plain weight {list(wanted)} of 16 or 32 bits"
    return None
