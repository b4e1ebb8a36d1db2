"""Which roles no engine takes as NVFP4, and why. Asked by recipes before any work, and by the gate.

Read in vLLM 0.33 and SGLang 0.5.23 (docs/engines.md 3).
"""

from collections.abc import Collection, Mapping

from halfbyte.models.roles import SHARED_SCALE, Role

LATENT_ATTENTION = "kv_b_proj is absorbed per head at load, SGLang's MLA path takes no NVFP4"
ABSORBED = "kv_b_proj"
"""The linear of latent attention that no engine takes packed; its others are ordinary linears, `o_proj` first."""

TIED_HEAD = (
    "lm_head.weight is stored although tie_word_embeddings is true: vLLM and SGLang use the embeddings in its place, "
    "transformers takes it; if the two differ, so will the answers"
)

WHOLE_EXPERTS = "engines run the three linears of routed experts in one format"

REASONS: dict[Role, str] = {
    Role.INDEXER: "vLLM and SGLang fuse wk with weights_proj in BF16; NVFP4 scales are unknown keys there",
    Role.LINEAR_ATTENTION: "no engine is known to load linear attention packed: its state amplifies what is rounded",
    Role.HYPER_CONNECTION: "it weighs whole residual streams, and is a plain parameter in SGLang",
    Role.ROUTER: "the router is a plain parameter in SGLang and must not be rounded: it decides top-k",
    Role.LM_HEAD: "vLLM reports the scales of parallel_lm_head as never loaded",
    Role.EMBEDDING: "no engine looks up packed embeddings",
    Role.MTP: "SGLang builds the MTP layer of modelopt_fp4 checkpoints unquantized",
}

PLAIN_INDEXER = ("wk", "weights_proj")
"""Linears of the indexer that both engines build without a quantization config."""


def why_unpackable(
    role: Role, projection: str | None, latent: bool, packs: Mapping[Role, tuple[str, ...]]
) -> str | None:
    """Why no engine takes a linear packed, None if one does.

    projection: None for all of the role together. latent: whether the attention is of the latent kind. packs: linears
    that engines take of this family, though of no other (`Family.packs`).
    """
    if projection in packs.get(role, ()):
        return None
    if role is Role.ATTENTION and latent and projection in (None, ABSORBED):
        return LATENT_ATTENTION
    return REASONS.get(role)


def halves_apart(packed: Collection[str], linears: Collection[str]) -> tuple[str, str] | None:
    """A packed linear and an unpacked one that engines fuse with it; None if there are no such two.

    packed, linears: projections of one module (an attention, an MLP).
    """
    for together in SHARED_SCALE:
        there = [name for name in together if name in linears]
        first = next((name for name in there if name in packed), None)
        other = next((name for name in there if name not in packed), None)
        if first is not None and other is not None:
            return first, other
    return None
