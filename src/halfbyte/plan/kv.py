"""The KV cache: bytes of a token on one rank, by pipeline stage, and tokens of a pool.

Latent attention keeps `latent` numbers per layer on every tensor-parallel rank; an indexer layer adds its key and one
float32 scale (128 + 4 bytes); grouped-query attention keeps K and V of the rank's heads. Decode context parallelism
spreads tokens over ranks: vLLM divides everything, SGLang the latent only.
"""

from dataclasses import dataclass

from halfbyte.plan.architecture import Architecture
from halfbyte.plan.deployment import Deployment, layout
from halfbyte.plan.engines import (
    INDEX_SCALE_BYTES,
    PAGE_TOKENS,
    keeps_all_index_layers,
    latent_bytes,
    pool_overrun_bytes,
)


@dataclass(frozen=True)
class KvStage:
    """Bytes per token of context on one rank of one stage, by kind.

    overrun: what an allocated token takes beyond `sized_bytes`, by which the engine divides its budget.
    """

    latent: float
    index: float
    heads: float
    overrun: float = 0.0

    @property
    def sized_bytes(self) -> float:
        return self.latent + self.index + self.heads

    @property
    def token_bytes(self) -> float:
        return self.sized_bytes + self.overrun


def kv_stage(arch: Architecture, d: Deployment, dtype: str, layers: range, last: bool) -> KvStage:
    """Cache bytes of the given layers; the last stage also caches the MTP layers when drafting is on."""
    drafts = arch.mtp_layers if d.mtp_tokens and last else 0
    count = len(layers) + drafts
    if arch.mla is None:
        heads = max(1, arch.kv_heads // layout(d).attention)
        number = 2 if dtype == "bf16" else 1
        spread = d.dcp if d.engine == "vllm" else 1
        return KvStage(0.0, 0.0, count * 2 * heads * arch.head_dim * number / spread)
    indexed = 0
    if arch.indexer is not None:
        own = len(layers) if keeps_all_index_layers(d) else sum(arch.has_indexer(layer) for layer in layers)
        indexed = own + drafts
    index = indexed * (arch.indexer.width + INDEX_SCALE_BYTES) if arch.indexer is not None else 0
    return KvStage(
        latent=count * latent_bytes(arch, d, dtype) / d.dcp,
        index=index / (d.dcp if d.engine == "vllm" else 1),
        heads=0.0,
        overrun=count * pool_overrun_bytes(arch, d, dtype),
    )


def tokens_in(pool_bytes: float, token_bytes: float, page_tokens: int = PAGE_TOKENS) -> int:
    """Whole pages of tokens that a pool holds; 0 for a pool that is not there."""
    if pool_bytes <= 0 or token_bytes <= 0:
        return 0
    return int(pool_bytes / token_bytes) // page_tokens * page_tokens


def page_tokens(arch: Architecture, d: Deployment) -> int:
    """Sparse attention forces pages of 64 tokens; SGLang's other pages are 1, vLLM's blocks 16 (64 for MLA kernels)."""
    if arch.mla is not None and (arch.indexer is not None or d.engine == "vllm"):
        return PAGE_TOKENS
    return 1 if d.engine == "sglang" else 16
