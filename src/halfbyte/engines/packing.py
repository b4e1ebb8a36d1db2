"""Which roles no engine takes as NVFP4, and why. Asked by recipes before any work, and by the gate.

Read in vLLM 0.33 and SGLang 0.5.23 (docs/engines.md 3).
"""

from halfbyte.models.roles import Role

LATENT_ATTENTION = "kv_b_proj is absorbed per head at load, SGLang's MLA path takes no NVFP4"

REASONS: dict[Role, str] = {
    Role.INDEXER: "vLLM and SGLang fuse wk with weights_proj in BF16; NVFP4 scales are unknown keys there",
    Role.ROUTER: "the router is a plain parameter in SGLang and must not be rounded: it decides top-k",
    Role.LM_HEAD: "vLLM reports the scales of parallel_lm_head as never loaded",
    Role.EMBEDDING: "no engine looks up packed embeddings",
    Role.MTP: "SGLang builds the MTP layer of modelopt_fp4 checkpoints unquantized",
}

PLAIN_INDEXER = ("wk", "weights_proj")
"""Linears of the indexer that both engines build without a quantization config."""


def unpackable(latent: bool) -> frozenset[Role]:
    """Roles that cannot be packed. latent: whether the attention is of the latent kind."""
    return frozenset(REASONS) | ({Role.ATTENTION} if latent else frozenset())
