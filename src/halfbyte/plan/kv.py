"""The KV cache: bytes of a token on one rank, by pipeline stage, and tokens of a pool.

Latent attention keeps `latent` numbers per layer on every tensor-parallel rank; an indexer layer adds its key and one
float32 scale (128 + 4 bytes); grouped-query attention keeps K and V of the rank's heads, and where it selects blocks
one BF16 key for that (SGLang at 01b5f57, minimax_m3.py). DeepSeek-V4 keeps one head, keys and values at once: of a
window, and of each `ratio` tokens of the context, with what the next of them is being made of. Decode context
parallelism spreads tokens over ranks: of everything or of the latent only, by engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from halfbyte.engines.engine import INDEX_SCALE_BYTES, PAGE_TOKENS
from halfbyte.engines.server import Limits
from halfbyte.models.architecture import Architecture, CompressedAttention
from halfbyte.plan.deployment import Deployment, draft_layers


@dataclass(frozen=True)
class KvStage:
    """Bytes per token of context on one rank of one stage, by kind.

    sliding: of the layers with a window, for each token that they hold; sliding_share: how many tokens they hold for
    each token of the pool. state: of linear attention and Mamba, for each sequence; state_share: sequences for each
    token of the pool. overrun: what an allocated token takes beyond `sized_bytes`, by which the engine divides its
    budget.
    """

    latent: float = 0.0
    index: float = 0.0
    heads: float = 0.0
    sliding: float = 0.0
    sliding_share: float = 0.0
    state: float = 0.0
    state_share: float = 0.0
    overrun: float = 0.0

    @property
    def sized_bytes(self) -> float:
        return self.latent + self.index + self.heads + self.sliding * self.sliding_share + self.state * self.state_share

    @property
    def token_bytes(self) -> float:
        return self.sized_bytes + self.overrun


def kv_stage(arch: Architecture, d: Deployment, settled: Limits, layers: range, last: bool) -> KvStage:
    """Cache bytes of the given layers; the last stage also caches the MTP layers when drafting is on."""
    drafts = draft_layers(arch, d) if last else 0
    if arch.compressed is not None:
        held = [*layers, *range(arch.layers, arch.layers + drafts)]
        return _compressed_stage(arch, arch.compressed, d, settled, held)
    linear = sum(layer in arch.linear for layer in layers)
    state = linear * states_kept(d) * state_bytes(arch, d)
    state_share = 1 / d.context if linear else 0.0
    if arch.mla is None:
        number = 2 if settled.kv_dtype == "bf16" else 1
        spread = d.dcp if d.facts.spreads_all_cache else 1
        far, near = (
            max(1, heads // d.layout.attention) * width * number / spread
            for heads, width in (
                (arch.kv_heads, arch.kv_numbers),
                (arch.sliding_kv_heads or arch.kv_heads, arch.sliding_kv_numbers),
            )
        )
        sliding = sum(layer in arch.sliding for layer in layers)
        chosen = arch.selection
        selecting = 0 if chosen is None else sum(layer in chosen.layers for layer in layers) * chosen.width
        return KvStage(
            index=2 * selecting / spread,
            heads=(sum(map(arch.attends, layers)) - sliding + drafts) * far,
            sliding=sliding * near,
            sliding_share=held_in_window(arch, d, settled, d.context) / d.context if sliding else 0.0,
            state=state,
            state_share=state_share,
        )
    indexed, count = 0, (len(layers) - linear) * arch.attentions + drafts
    if arch.indexer is not None:
        own = (
            len(layers) - linear
            if d.facts.keeps_all_index_layers(d.version)
            else sum(arch.has_indexer(layer) for layer in layers)
        )
        indexed = own + (drafts if d.draft_gib is None else 0)
    index = indexed * (arch.indexer.width + INDEX_SCALE_BYTES) if arch.indexer is not None else 0
    return KvStage(
        latent=count * d.facts.latent_bytes(arch, d.gpu, settled.kv_dtype) / d.dcp,
        index=index / (d.dcp if d.facts.spreads_all_cache else 1),
        state=state,
        state_share=state_share,
        overrun=count * d.facts.pool_overrun_bytes(arch, d.gpu, settled.kv_dtype),
    )


def _compressed_stage(
    arch: Architecture, parts: CompressedAttention, d: Deployment, settled: Limits, layers: Sequence[int]
) -> KvStage:
    """The same on every rank. In FP8 a key takes a byte for each number that is not rotated, two for each of the 64
    that are, a scale for 64 and a byte more (vLLM at 0101ca2, `fp8_ds_mla`). What a compressed key is being made of:
    values and gates in float32 (`CompressorStateCache` there)."""
    assert arch.indexer is not None
    head, turned = arch.head_dim, 64
    key = 2 * head if settled.kv_dtype == "bf16" else head + turned + (head - turned) // 64 + 1
    squeezed = [parts.ratios[layer] for layer in layers if parts.ratios[layer]]
    sparse = [layer for layer in layers if parts.ratios[layer] == parts.sparse]
    unfinished = 0
    for layer in layers:
        for own in (head, arch.indexer.width) if layer in sparse else (head,):
            width = parts.width(layer, own)
            unfinished += 2 * 4 * parts.ratios[layer] * (width // own) * width
    return KvStage(
        latent=sum(key / ratio for ratio in squeezed),
        index=len(sparse) * (arch.indexer.width + INDEX_SCALE_BYTES) / parts.sparse,
        sliding=len(layers) * key,
        sliding_share=held_in_window(arch, d, settled, d.context) / d.context,
        state=unfinished,
        state_share=1 / d.context,
    )


def states_kept(d: Deployment) -> int:
    """Of a sequence: the last, and with drafts one after each of them, to go on from the last that is accepted."""
    return 1 + (d.mtp_tokens + d.facts.checked_states if d.mtp_tokens else 0)


def state_bytes(arch: Architecture, d: Deployment) -> float:
    """Of one layer with a state and one sequence on one rank: the convolution's last inputs and the heads' matrices.

    Linear attention keeps both in 16 bits (vLLM 0.26.0 `gated_delta_net_state_dtype`, with `--mamba-cache-dtype auto`),
    Mamba-2 the heads' as config.json says (`MambaStateShapeCalculator.mamba2_state_shape`). Posted for
    Nemotron-3-Nano in vLLM: pages of 4176 tokens of 512 bytes hold a state padded by 0.19 %.
    """
    if arch.mamba is not None:
        mixer = arch.mamba
        held = 2 * mixer.convolved * (mixer.kernel - 1) + mixer.state_bytes * mixer.inner * mixer.state
        return held / d.layout.attention
    parts = arch.linear_attention
    if parts is None:
        return 0.0
    numbers = parts.convolved * (parts.kernel - 1) + parts.value_heads * parts.key_width * parts.value_width
    return 2 * numbers / d.layout.attention


def held_in_window(arch: Architecture, d: Deployment, settled: Limits, context: float) -> float:
    """Tokens that a sliding layer's cache holds of a sequence of `context` tokens. DeepSeek-V4's windows are taken to
    hold what they need; the share of the pool that SGLang gives them was not read."""
    if arch.compressed is not None:
        return min(context, arch.window - 1 + settled.chunk)
    return d.facts.held_in_window(d.version, arch.window, settled.chunk, context)


def tokens_in(pool_bytes: float, token_bytes: float, page_tokens: int = PAGE_TOKENS) -> int:
    """Whole pages of tokens that a pool holds; 0 for a pool that is not there."""
    if pool_bytes <= 0 or token_bytes <= 0:
        return 0
    return int(pool_bytes / token_bytes) // page_tokens * page_tokens
