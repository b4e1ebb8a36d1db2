"""Memory of one GPU: every term, the peak over phases, the KV pool that is left, and whether it fits.

The engines divide a GPU differently (docs/engines.md 7). SGLang: weights and KV fill `fraction` of what was free
before loading, and everything else must live in the rest. vLLM: `fraction` of the total holds weights, the measured
peak of one dummy forward, graphs, and KV; context and communicators lie outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from halfbyte.engines.server import GIB, Limits, communicator_bytes, process_bytes
from halfbyte.models.architecture import Architecture
from halfbyte.plan.activations import graph_term, transient_terms
from halfbyte.plan.cuts import check_cuts
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.kv import KvStage, kv_stage, tokens_in
from halfbyte.plan.resident import resident_terms
from halfbyte.plan.terms import CAPTURE, DECODE, PHASES, PREFILL, SERVING, Term, phase_bytes
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.plan.weights import StageWeights, rank_weights

RESERVE_SHARE = 0.05
"""Allocator fragmentation, as a share of the transient buffers. An allowance, not a measurement."""


@dataclass(frozen=True)
class MemoryPlan:
    """One rank of the tightest pipeline stage. Bytes unless named otherwise.

    weights_bytes: what the engine logs as loaded (draft layers too). kv_tokens: what the engine logs as its pool, of
    one rank with requests of its own. pool: how the bytes for KV follow from the engine's fraction, in words. peaks:
    bytes by phase. problems: why it does not fit, empty if it does.
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
    pool: str
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
    check_cuts(groups, arch, d)
    settled = d.limits(arch)
    found = rank_weights(groups, arch, d)
    plans = [
        _stage_plan(arch, d, settled, weights, kv_stage(arch, d, settled, weights.layers, weights is found[-1]))
        for weights in found
    ]
    return min(plans, key=lambda plan: (plan.fits, plan.kv_tokens, -plan.weights_bytes))


class Pool(NamedTuple):
    """Bytes that an engine leaves for the KV cache, and the sum that says so."""

    bytes: float
    words: str


def _stage_plan(arch: Architecture, d: Deployment, settled: Limits, weights: StageWeights, kv: KvStage) -> MemoryPlan:
    total, page = d.gpu.memory_gib * GIB, d.facts.page_tokens(arch)
    outside = process_bytes(d.gpu) + communicator_bytes(d.gpu, d.world, d.dcp)
    if not d.facts.profiles:
        pool = _pool_of_the_fraction(settled, weights, total, outside)
        kv_tokens = _tokens_of(pool, kv, d, page)
        chunk = min(settled.chunk, kv_tokens) or settled.chunk  # no chunk is longer than the pool, if there is one
        transient = transient_terms(arch, d, settled, chunk)
        transient.append(_reserve(transient))
    else:
        chunk = settled.chunk
        transient = transient_terms(arch, d, settled, chunk)
        pool = _pool_after_profiling(
            d, settled, weights, total, transient, outside if d.facts.counts_context_inside(d.version) else 0.0
        )
        kv_tokens = _tokens_of(pool, kv, d, page)
    loaded = weights.main + weights.draft
    terms = [*resident_terms(d, weights, kv, kv_tokens), *transient]
    peaks = {phase: phase_bytes(terms, phase) for phase in PHASES}
    return MemoryPlan(
        deployment=d,
        limits=settled,
        weights=weights,
        kv=kv,
        terms=tuple(terms),
        usable_bytes=total,
        weights_bytes=loaded,
        kv_bytes=kv_tokens * kv.token_bytes,
        kv_tokens=kv_tokens,
        prefill_tokens=chunk,
        pool=pool.words,
        peaks=peaks,
        problems=tuple(_problems(d, settled, loaded, pool, kv_tokens, page, outside) + _overflows(peaks, total)),
    )


def _pool_of_the_fraction(settled: Limits, weights: StageWeights, total: float, outside: float) -> Pool:
    size = settled.fraction * (total - outside) - weights.main
    words = (
        f"{settled.fraction:g} x ({total / GIB:.2f} total - {outside / GIB:.2f} context and communicators) - "
        f"{weights.main / GIB:.2f} weights = {size / GIB:.2f} GiB"
    )
    return Pool(size, words)


def _pool_after_profiling(
    d: Deployment, settled: Limits, weights: StageWeights, total: float, transient: Sequence[Term], counted: float
) -> Pool:
    """counted: bytes of context and communicators that this version counts as the server's own."""
    loaded, profiled = weights.main + weights.draft, [term for term in transient if term.profiled]
    inside = max(phase_bytes(profiled, phase) for phase in (PREFILL, DECODE, CAPTURE)) + counted
    forecast = d.facts.graph_forecast(d) * graph_term(d, settled).bytes
    size = settled.fraction * total - loaded - inside - forecast
    words = (
        f"{settled.fraction:g} x {total / GIB:.2f} total - {loaded / GIB:.2f} weights - "
        f"{inside / GIB:.2f} profiled peak - {forecast / GIB:.2f} forecast of CUDA graphs = {size / GIB:.2f} GiB"
    )
    return Pool(size, words)


def _tokens_of(pool: Pool, kv: KvStage, d: Deployment, page: int) -> int:
    tokens = tokens_in(pool.bytes, kv.sized_bytes, page)
    return tokens if d.max_total_tokens is None else min(tokens, d.max_total_tokens)


def _reserve(transient: list[Term]) -> Term:
    size = RESERVE_SHARE * phase_bytes(transient, PREFILL)
    return Term("allocator reserve", SERVING, size, f"{RESERVE_SHARE:.0%} of the prefill buffers", "allowance")


def _problems(
    d: Deployment, settled: Limits, loaded: float, pool: Pool, kv_tokens: int, page: int, outside: float
) -> list[str]:
    """Why the server would not start, or not hold what is asked."""
    found, claimed = [], settled.fraction * d.gpu.memory_gib * GIB
    free = d.gpu.memory_gib * GIB - outside
    if pool.bytes <= 0:
        found.append(f"weights of {loaded / GIB:.1f} GiB per GPU leave nothing for the KV cache: {pool.words}")
    elif kv_tokens < page:
        found.append(f"the KV cache holds {kv_tokens} tokens, less than one page of {page}")
    elif d.facts.profiles and kv_tokens < d.context:
        refusal = f"{d.facts.title} refuses to start: the KV cache holds {kv_tokens} tokens"
        found.append(f"{refusal}, one sequence may have {d.context}")
    elif d.concurrency is not None and kv_tokens < _tokens_wanted(d):
        found.append(f"the KV cache holds {kv_tokens} tokens, {d.concurrency} sequences want {_tokens_wanted(d)}")
    if d.facts.profiles and claimed > free and not d.facts.counts_context_inside(d.version):
        claim = f"a utilization of {settled.fraction:g} claims {claimed / GIB:.1f} GiB"
        found.append(f"{claim}, {free / GIB:.1f} GiB are free at start")
    return found


def _overflows(peaks: dict[str, float], total: float) -> list[str]:
    phase = max(peaks, key=lambda name: peaks[name])
    over = peaks[phase] - total
    if over <= 0:
        return []
    others = [name for name, peak in peaks.items() if peak > total and name != phase]
    also = f"; over in {', '.join(others)} as well" if others else ""
    return [f"{phase} peaks at {peaks[phase] / GIB:.1f} GiB of {total / GIB:.1f}: {over / GIB:.1f} too much{also}"]


def _tokens_wanted(d: Deployment) -> int:
    """Tokens that the asked concurrency needs on each rank with requests of its own."""
    assert d.concurrency is not None
    return -(-d.concurrency // (d.kv_ranks * d.replicas)) * d.context
