"""Buffers that live during a forward pass of T tokens on one rank, in bytes.

Formulas of docs/engines.md 8 (read in SGLang 0.5.23 and vLLM 0.33; upper estimates). H is the hidden size, t the
ranks that share attention heads. All activations are BF16 unless a formula says otherwise.
"""

from collections.abc import Iterator

from halfbyte.engines.server import MIB, Limits
from halfbyte.engines.sources import BUFFERS
from halfbyte.models.architecture import Architecture
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.terms import CAPTURE, DECODE, PREFILL, SERVING, Term

VLLM_INDEX_LOGITS_BYTES = 512 * MIB
"""`VLLM_SPARSE_INDEXER_MAX_LOGITS_MB`; SGLang chunks these logits to what memory is free, so the same is assumed."""
WHOLE_LOGITS = "posted pools of vLLM on SM120 at contexts of 65,536, 202,752 and 250,000"
INDEX_KEY_BYTES = 132


def transient_terms(arch: Architecture, d: Deployment, settled: Limits, tokens: int) -> list[Term]:
    """All buffers of a server whose prefill takes `tokens` tokens at once on a rank."""
    positions = d.facts.decode_rows(d, settled)
    found = forward_terms(arch, d, tokens, (PREFILL,))
    found += [
        Term(f"{term.name} (decode)", (DECODE, CAPTURE), term.bytes, term.formula, term.source)
        for term in forward_terms(arch, d, min(positions, 8192), (DECODE, CAPTURE))
    ]
    found += sparse_terms(arch, d, settled, tokens)
    found += draft_terms(arch, d, tokens)
    found.append(logits_term(arch, d, positions))
    found.append(graph_term(d, settled))
    workspace = d.facts.attention_workspace_bytes(d.gpu)
    if workspace:
        found.append(Term("attention workspace", SERVING, workspace, "at most 0.5 GiB", f"TRT-LLM; {BUFFERS}"))
    return found


def forward_terms(arch: Architecture, d: Deployment, tokens: int, phases: tuple[str, ...]) -> list[Term]:
    """Hidden states, attention and MLP buffers of one layer: layers run one after another and reuse them."""
    hidden = arch.hidden
    found = [
        Term(
            "hidden states",
            phases,
            4 * tokens * hidden,
            f"2 B x 2 (hidden, residual) x {tokens} x {hidden}",
            BUFFERS,
            "a smaller --chunk",
        )
    ]
    found += _attention(arch, d, tokens, phases)
    found += _mlp(arch, d, tokens, phases)
    return found


def _attention(arch: Architecture, d: Deployment, tokens: int, phases: tuple[str, ...]) -> Iterator[Term]:
    heads = arch.heads // d.layout.attention
    if arch.mamba is not None:
        wide = (arch.mamba.projected + arch.mamba.convolved + arch.mamba.inner) // d.layout.attention
        formula = f"2 B x {tokens} x {wide} (projection, convolution, output)"
        yield Term("state mixer", phases, 2 * tokens * wide, formula, BUFFERS, "a smaller --chunk")
    if arch.mla is None:
        keys = max(1, arch.kv_heads // d.layout.attention)
        size = 2 * tokens * (2 * heads + 2 * keys) * arch.head_dim
        formula = f"2 B x {tokens} x (2 x {heads} + 2 x {keys} heads) x {arch.head_dim}"
        yield Term("attention projections", phases, size, formula, BUFFERS, "a smaller --chunk")
        return
    mla = arch.mla
    down = 2 * tokens * (mla.q_rank + mla.latent)
    query = 2 * tokens * heads * (mla.nope + mla.rope + mla.value)
    formula = f"2 B x {tokens} x ({mla.q_rank + mla.latent} + {heads} heads x {mla.nope + mla.rope + mla.value})"
    yield Term("attention projections", phases, down + query, formula, BUFFERS, "a smaller --chunk")
    wide = heads * d.dcp  # decode context parallelism gathers the queries of its ranks
    size = 2 * tokens * wide * (mla.latent + mla.kv_rank)
    formula = f"2 B x {tokens} x {wide} heads x ({mla.latent} + {mla.kv_rank})"
    yield Term("absorbed query and latent output", phases, size, formula, BUFFERS, "a smaller --chunk", profiled=False)


def _mlp(arch: Architecture, d: Deployment, tokens: int, phases: tuple[str, ...]) -> Iterator[Term]:
    ranks = d.layout
    gathered = tokens * d.kv_ranks  # with data-parallel attention, a rank's experts see the tokens of all ranks
    moe = min(gathered, d.facts.moe_chunk_tokens(d.gpu))
    joined = 2 if arch.gated_experts else 1
    width = joined * arch.expert_width // ranks.expert_width
    formula = f"2 B x {moe} x top {arch.top_k} x ({joined} x {arch.expert_width} / {ranks.expert_width})"
    gemm1 = 2 * moe * arch.top_k * width
    yield Term(
        "expert gate and up output" if arch.gated_experts else "expert up output",
        phases,
        gemm1,
        formula,
        BUFFERS,
        "a smaller --chunk, more --tp",
    )
    unmerged = 2 * moe * arch.top_k * arch.expert_hidden
    formula = f"2 B x {moe} x top {arch.top_k} x {arch.expert_hidden}"
    yield Term("expert output before merging", phases, unmerged, formula, BUFFERS, "a smaller --chunk")
    packed = 0.5625 * gathered * arch.expert_hidden
    yield Term("packed expert input", phases, packed, f"0.5625 B x {gathered} x {arch.expert_hidden}", BUFFERS)
    if gathered > tokens:
        size = 4 * gathered * arch.hidden
        yield Term(
            "gathered tokens",
            phases,
            size,
            f"4 B x {gathered} x {arch.hidden}",
            "all-gather before the experts",
            "less --dp",
        )
    if arch.shared_width:
        shared = 2 * joined * tokens * arch.shared_width / ranks.shared
        formula = f"2 B x {tokens} x {joined} x {arch.shared_width} / {ranks.shared}"
        yield Term("shared expert", phases, shared, formula, BUFFERS)


def sparse_terms(arch: Architecture, d: Deployment, limits: Limits, tokens: int) -> list[Term]:
    """Buffers of the indexer and of sparse prefill. Empty for dense attention."""
    if arch.indexer is None or arch.mla is None:
        return []
    top_k = arch.indexer.top_k
    copies = d.facts.top_k_buffers(d.mtp_tokens > 0)
    query = 2 * tokens * arch.indexer.heads * arch.indexer.width
    whole = d.facts.whole_index_logits(d.gpu)
    scores = 4 * tokens * d.context
    logits = scores if whole else min(scores, VLLM_INDEX_LOGITS_BYTES)
    found = [
        Term(
            "top-k indices",
            SERVING,
            copies * 4 * limits.chunk * top_k,
            f"{copies} x 4 B x {limits.chunk} x {top_k}",
            BUFFERS,
            "a smaller --chunk",
        ),
        Term(
            "indexer query", (PREFILL,), query, f"2 B x {tokens} x {arch.indexer.heads} x {arch.indexer.width}", BUFFERS
        ),
        Term(
            "indexer logits",
            (PREFILL,),
            logits,
            f"4 B x {tokens} x {d.context}" if whole else f"min(4 B x {tokens} x {d.context}, 512 MiB)",
            WHOLE_LOGITS if whole else "VLLM_SPARSE_INDEXER_MAX_LOGITS_MB; SGLang chunks by free memory",
            "a smaller --chunk",
        ),
    ]
    factor = d.facts.sparse_workspace_factor(d.gpu, d.context)
    if factor:
        size = factor * d.context * 2 * arch.mla.latent + 8 * factor * d.context * INDEX_KEY_BYTES
        formula = f"{factor} x {d.context} x {2 * arch.mla.latent} + 8 x {factor} x {d.context} x {INDEX_KEY_BYTES}"
        source = "vLLM get_max_prefill_buffer_size; posted pools at three lengths say that both parts are live"
        found.append(Term("sparse prefill workspace", SERVING, size, formula, source, "a shorter --context"))
    return found


def draft_terms(arch: Architecture, d: Deployment, tokens: int) -> list[Term]:
    """What an MTP layer adds to prefill: the target's hidden states, kept and joined with embeddings for eh_proj."""
    if not d.mtp_tokens:
        return []
    size = 2 * tokens * 3 * arch.hidden
    formula = f"2 B x {tokens} x ({arch.hidden} kept + 2 x {arch.hidden} joined)"
    return [Term("draft input", (PREFILL,), size, formula, "eh_proj takes [2 H]", "no --mtp, a smaller --chunk")]


def logits_term(arch: Architecture, d: Deployment, rows: int) -> Term:
    """Sampling buffers for `rows` positions over the whole (gathered) vocabulary."""
    copies = d.facts.sampler_copies
    size = 4.0 * copies * rows * arch.vocab
    formula = f"{copies} x 4 B x {rows} rows x {arch.vocab}"
    return Term("logits and sampling", (DECODE,), size, formula, BUFFERS, "fewer running sequences")


def graph_term(d: Deployment, limits: Limits) -> Term:
    """CUDA graphs and their private pool."""
    if limits.graph_batch == 0:
        return Term("CUDA graphs", SERVING, 0.0, "none captured", BUFFERS)
    size, formula, source, shrink = d.facts.graph_bytes(d, limits.graph_batch)
    return Term("CUDA graphs", SERVING, size, formula, source, shrink, profiled=False)
