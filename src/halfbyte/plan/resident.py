"""What lies in memory whatever the load: weights by role, the KV pool, context, communicators; copies while loading."""

from halfbyte.engines.server import communicator_bytes, process_bytes
from halfbyte.engines.sources import CACHE, KERNELS, LOADING, WEIGHTS
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.kv import KvStage
from halfbyte.plan.terms import ALWAYS, LOAD, SERVING, Term
from halfbyte.plan.weights import StageWeights

SLIDING_SOURCE = "vLLM SlidingWindowSpec: window - 1 + chunk; SGLang --swa-full-tokens-ratio"


def resident_terms(d: Deployment, weights: StageWeights, kv: KvStage, kv_tokens: int) -> list[Term]:
    """Weights, KV cache, context, communicators; and what only loading needs."""
    rules = WEIGHTS
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
        found.append(Term(name, SERVING, kv_tokens * each, formula, CACHE, shrink))
    if kv.sliding:
        formula = f"{kv_tokens} tokens x {kv.sliding:g} B x {kv.sliding_share:.3f} of them held"
        size = kv_tokens * kv.sliding * kv.sliding_share
        found.append(Term("KV cache: sliding layers", SERVING, size, formula, SLIDING_SOURCE))
    if kv.state:
        held = kv_tokens * kv.state_share
        formula = f"{held:.1f} sequences of the context asked for x {kv.state:g} B"
        found.append(Term("KV cache: state of a sequence", SERVING, held * kv.state, formula, CACHE))
    if kv.index:
        formula = f"{kv_tokens} tokens x {kv.index:g} B"
        found.append(Term("KV cache: indexer keys", SERVING, kv_tokens * kv.index, formula, CACHE))
    if kv.overrun:
        formula = f"{kv_tokens} tokens x {kv.overrun:g} B"
        source = "posted: SGLang on MI355X sizes by 708 B a layer, allocates 788"
        found.append(Term("KV cache: beyond its size", SERVING, kv_tokens * kv.overrun, formula, source))
    found.append(Term("process context", ALWAYS, process_bytes(d.gpu), "per process", "posted: H100 79.18 - 78.48 GiB"))
    communicators = communicator_bytes(d.gpu, d.world, d.dcp)
    if communicators:
        source = "posted free memory before load at TP8"
        found.append(Term("communicators", ALWAYS, communicators, "per GPU of a group", source))
    if weights.largest_expert_layer:
        formula = "one layer's experts, copied while repacked"
        found.append(Term("repacking at load", (LOAD,), weights.largest_expert_layer, formula, f"{LOADING}, {KERNELS}"))
    if weights.nvfp4_experts and d.facts.swizzles_scales(d.gpu):
        size, formula = weights.nvfp4_experts / 9, "1/9 of the NVFP4 experts: block scales beside their swizzled form"
        found.append(Term("swizzled scales at load", (LOAD,), size, formula, LOADING))
    return found
