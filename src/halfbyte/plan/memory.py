"""Memory of one GPU: every term, the peak over phases, the KV pool that is left, and whether it fits.

The engines divide a GPU differently (serving notes 3.3). SGLang: weights and KV fill `fraction` of what was free
before loading, and everything else must live in the rest. vLLM: `fraction` of the total holds weights, the measured
peak of one dummy forward, graphs, and KV; context and communicators lie outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from halfbyte.plan.activations import draft_terms, forward_terms, graph_term, logits_term, sparse_terms
from halfbyte.plan.architecture import Architecture
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.engines import GIB, Limits, communicator_bytes, counts_context_inside, limits, process_bytes
from halfbyte.plan.kv import KvStage, kv_stage, page_tokens, tokens_in
from halfbyte.plan.terms import ALWAYS, CAPTURE, DECODE, LOAD, PHASES, PREFILL, SERVING, Term, phase_bytes
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.plan.weights import StageWeights, rank_weights

RESERVE_SHARE = 0.05
"""Allocator fragmentation, as a share of the transient buffers. An allowance, not a measurement."""


@dataclass(frozen=True)
class MemoryPlan:
    """One rank of the tightest pipeline stage. Bytes unless named otherwise.

    weights_bytes: what the engine logs as loaded (draft layers too). kv_tokens: what the engine logs as its pool, of
    one rank with requests of its own. peaks: bytes by phase. problems: why it does not fit, empty if it does.
    """

    deployment: Deployment
    limits: Limits
    weights: StageWeights
    kv: KvStage
    terms: tuple[Term, ...]
    usable_bytes: float
    weights_bytes: float
    kv_bytes: float
    kv_tokens: int
    prefill_tokens: int
    peaks: dict[str, float]
    problems: tuple[str, ...]

    @property
    def peak_bytes(self) -> float:
        return max(self.peaks.values())

    @property
    def peak_phase(self) -> str:
        return max(self.peaks, key=lambda phase: self.peaks[phase])

    @property
    def headroom_bytes(self) -> float:
        return self.usable_bytes - self.peak_bytes

    @property
    def fits(self) -> bool:
        return not self.problems


def plan_memory(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> MemoryPlan:
    """The plan of the stage with the smallest pool."""
    settled = limits(arch, d)
    found = rank_weights(groups, arch, d)
    plans = [
        _stage_plan(
            arch, d, settled, weights, kv_stage(arch, d, settled.kv_dtype, weights.layers, weights is found[-1])
        )
        for weights in found
    ]
    return min(plans, key=lambda plan: (plan.fits, plan.kv_tokens, -plan.weights_bytes))


def _stage_plan(arch: Architecture, d: Deployment, settled: Limits, weights: StageWeights, kv: KvStage) -> MemoryPlan:
    total = d.gpu.memory_gib * GIB
    outside = process_bytes(d.gpu) + communicator_bytes(d)
    page = page_tokens(arch, d)
    tokens = settled.chunk
    for _ in range(2):  # a chunk is never longer than the pool, which vLLM sizes by the chunk: settle in two steps
        transient = _transient_terms(arch, d, settled, tokens)
        if d.engine == "sglang":
            budget = settled.fraction * (total - outside) - weights.main
        else:
            profiled = [term for term in transient if term.profiled]
            inside = max(phase_bytes(profiled, phase) for phase in (PREFILL, DECODE, CAPTURE))
            inside += outside if counts_context_inside(d) else 0.0
            budget = settled.fraction * total - weights.main - weights.draft - inside
        kv_tokens = tokens_in(budget, kv.sized_bytes, page)
        if d.max_total_tokens is not None:
            kv_tokens = min(kv_tokens, d.max_total_tokens)
        tokens = max(min(settled.chunk, kv_tokens), 1)
        if d.engine == "vllm" or tokens == settled.chunk:
            tokens = settled.chunk
            break
    kv_bytes = kv_tokens * kv.token_bytes
    terms = [*_resident_terms(arch, d, weights, kv, kv_tokens), *transient]
    if d.engine == "sglang":
        terms.append(_reserve(transient))
    peaks = {phase: phase_bytes(terms, phase) for phase in PHASES}
    problems = _problems(d, settled, peaks, total, budget, kv_tokens, page, outside, weights)
    return MemoryPlan(
        d,
        settled,
        weights,
        kv,
        tuple(terms),
        total,
        weights.main + weights.draft,
        kv_bytes,
        kv_tokens,
        tokens,
        peaks,
        tuple(problems),
    )


def _resident_terms(
    arch: Architecture, d: Deployment, weights: StageWeights, kv: KvStage, kv_tokens: int
) -> list[Term]:
    rules = "serving notes 3.1"
    found = []
    for role, size in weights.target.items():
        found.append(
            Term(f"weights: {role}", ALWAYS, size, weights.formula(role), rules, "a smaller recipe, more GPUs")
        )
    if weights.absorbed:
        formula = "2 B x kv_b_proj / attention ranks"
        found.append(Term("weights: absorbed kv_b_proj", ALWAYS, weights.absorbed, formula, rules, "more --tp"))
    if weights.vision:
        found.append(Term("weights: vision tower", ALWAYS, weights.vision, "2 B x parameters", "vision_config"))
    if weights.draft:
        found.append(Term("weights: MTP", ALWAYS, weights.draft, "like its parts", rules, "no --mtp"))
    if kv.latent or kv.heads:
        name = "KV cache: latent" if kv.latent else "KV cache: heads"
        each = kv.latent or kv.heads
        formula = f"{kv_tokens} tokens x {each:g} B"
        shrink = "a lower memory fraction (fewer tokens)"
        found.append(Term(name, SERVING, kv_tokens * each, formula, "serving notes 3.2", shrink))
    if kv.index:
        formula = f"{kv_tokens} tokens x {kv.index:g} B"
        found.append(Term("KV cache: indexer keys", SERVING, kv_tokens * kv.index, formula, "serving notes 3.2"))
    if kv.overrun:
        formula = f"{kv_tokens} tokens x {kv.overrun:g} B"
        source = "posted: SGLang on MI355X sizes by 708 B a layer, allocates 788"
        found.append(Term("KV cache: beyond its size", SERVING, kv_tokens * kv.overrun, formula, source))
    found.append(Term("process context", ALWAYS, process_bytes(d.gpu), "per process", "posted: H100 79.18 - 78.48 GiB"))
    if communicator_bytes(d):
        source = "posted free memory before load at TP8"
        found.append(Term("communicators", ALWAYS, communicator_bytes(d), "per GPU of a group", source))
    if weights.largest_expert_layer:
        formula = "one layer's experts, copied while repacked"
        found.append(Term("repacking at load", (LOAD,), weights.largest_expert_layer, formula, "serving notes 1.3, 2"))
    if weights.nvfp4_experts and d.engine == "sglang" and d.gpu.family != "sm100":
        size, formula = weights.nvfp4_experts / 9, "1/9 of the NVFP4 experts: block scales beside their swizzled form"
        found.append(Term("swizzled scales at load", (LOAD,), size, formula, "serving notes 1.3"))
    return found


def _transient_terms(arch: Architecture, d: Deployment, settled: Limits, tokens: int) -> list[Term]:
    rows = min(settled.max_sequences, settled.graph_batch if d.engine == "sglang" else settled.max_sequences)
    positions = rows * (d.mtp_tokens + 1 if d.engine == "sglang" else 1)
    found = forward_terms(arch, d, tokens, (PREFILL,))
    found += [
        Term(f"{term.name} (decode)", (DECODE, CAPTURE), term.bytes, term.formula, term.source)
        for term in forward_terms(arch, d, min(positions, 8192), (DECODE, CAPTURE))
    ]
    found += sparse_terms(arch, d, settled, tokens)
    found += draft_terms(arch, d, tokens)
    found.append(logits_term(arch, d, positions))
    found.append(graph_term(d, settled))
    if d.engine == "sglang" and d.gpu.family == "sm100":
        found.append(Term("attention workspace", SERVING, 0.5 * GIB, "at most 0.5 GiB", "TRT-LLM; serving notes 3.4"))
    return found


def _reserve(transient: list[Term]) -> Term:
    size = RESERVE_SHARE * phase_bytes(transient, PREFILL)
    return Term("allocator reserve", SERVING, size, f"{RESERVE_SHARE:.0%} of the prefill buffers", "allowance")


def _problems(
    d: Deployment,
    settled: Limits,
    peaks: dict[str, float],
    total: float,
    budget: float,
    kv_tokens: int,
    page: int,
    outside: float,
    weights: StageWeights,
) -> list[str]:
    found = []
    need = weights.main + (weights.draft if d.engine == "vllm" else 0.0)
    if budget <= 0:
        found.append(
            f"weights of {need / GIB:.1f} GiB per GPU leave {budget / GIB:.1f} GiB for the KV cache under a memory "
            f"fraction of {settled.fraction:g}"
        )
    elif kv_tokens < page:
        found.append(f"the KV cache holds {kv_tokens} tokens, less than one page of {page}")
    elif d.engine == "vllm" and kv_tokens < d.context:
        found.append(f"vLLM refuses to start: the KV cache holds {kv_tokens} tokens, one sequence may have {d.context}")
    elif d.concurrency is not None and kv_tokens < _tokens_wanted(d):
        found.append(f"the KV cache holds {kv_tokens} tokens, {d.concurrency} sequences want {_tokens_wanted(d)}")
    if d.engine == "vllm" and settled.fraction * total > total - outside and not counts_context_inside(d):
        found.append(
            f"a utilization of {settled.fraction:g} claims {settled.fraction * total / GIB:.1f} GiB, "
            f"{(total - outside) / GIB:.1f} GiB are free at start"
        )
    for phase, peak in peaks.items():
        if peak > total:
            found.append(
                f"{phase} peaks at {peak / GIB:.1f} GiB of {total / GIB:.1f}: {(peak - total) / GIB:.1f} too much"
            )
    return found


def _tokens_wanted(d: Deployment) -> int:
    """Tokens that the asked concurrency needs on each rank with requests of its own."""
    assert d.concurrency is not None
    return -(-d.concurrency // (d.kv_ranks * d.replicas)) * d.context
