"""What a memory plan means: how many sequences, how long, with which chunk, on how few GPUs, and what would help."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from halfbyte.engines.server import GIB
from halfbyte.errors import HalfbyteError
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.kv import held_in_window
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.target import PlannedModel

GPU_COUNTS = (1, 2, 4, 8, 16, 32, 64)
CHUNK_STEP = 1024
MOST_CHUNK = 1 << 20
CHEAPER_RECIPES = ("bf16", "fp8-block", "nvfp4-routed-experts", "nvfp4-experts-and-shared", "nvfp4-mlp", "nvfp4-all")


class Change(NamedTuple):
    """A change of one setting and the plan that follows."""

    what: str
    plan: MemoryPlan


def max_concurrency(model: PlannedModel, plan: MemoryPlan, context: int | None = None) -> int:
    """Sequences of `context` tokens that the KV pools of all replicas hold at once."""
    d = plan.deployment
    page = d.facts.page_tokens(model.arch)
    tokens = -(-(context or d.context) // page) * page
    each = plan.kv_tokens // tokens
    if plan.kv.sliding:
        each = int(plan.kv_bytes / sequence_bytes(model, plan, tokens))
    return each * d.kv_ranks * d.replicas


def max_context(model: PlannedModel, plan: MemoryPlan, concurrency: int | None = None) -> int:
    """The longest context, in tokens, of `concurrency` sequences (1 unless asked), within the model's own limit."""
    d = plan.deployment
    each = -(-(concurrency or d.concurrency or 1) // (d.kv_ranks * d.replicas))
    page, most = d.facts.page_tokens(model.arch), model.arch.max_context
    if not plan.kv.sliding:
        return min(plan.kv_tokens // each // page * page, most)
    low, high = 0, -(-most // page)
    while low < high:
        middle = (low + high + 1) // 2
        fits = each * sequence_bytes(model, plan, middle * page) <= plan.kv_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return min(low * page, most)


def sequence_bytes(model: PlannedModel, plan: MemoryPlan, tokens: int) -> float:
    """KV bytes of one sequence of `tokens` tokens; sliding layers hold no more than their window, states stay."""
    held = held_in_window(model.arch, plan.deployment, plan.limits, tokens)
    return (plan.kv.latent + plan.kv.index + plan.kv.heads) * tokens + plan.kv.sliding * held + plan.kv.state


def largest_chunk(model: PlannedModel, d: Deployment) -> int:
    """The largest prefill chunk, in steps of 1,024 tokens, that fits with everything else as it is; 0 if none does."""

    def fits(chunk: int) -> bool:
        return plan_memory(model.groups, model.arch, replace(d, chunk=chunk)).fits

    low, high = 0, MOST_CHUNK // CHUNK_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CHUNK_STEP) else (low, middle - 1)
    return low * CHUNK_STEP


def with_gpus(model: PlannedModel, d: Deployment, gpus: int) -> Deployment:
    """The same server on another number of GPUs: tensor parallel inside a node, pipeline stages across nodes."""
    node = max(d.gpu.gpus_per_node, 1)
    pp = max(1, gpus // node) if gpus > node else 1
    dp = gpus // pp if d.dp_attention else 1
    fresh = make_deployment(
        model.arch, d.gpu, gpus, d.engine, tp=gpus // pp, dp=dp, pp=pp, context=d.context, concurrency=d.concurrency
    )
    keep = {"chunk": d.chunk, "kv_dtype": d.kv_dtype, "fraction": d.fraction, "mtp_tokens": d.mtp_tokens}
    keep |= {"max_sequences": d.max_sequences, "graph_batch": d.graph_batch, "engine_version": d.engine_version}
    return replace(fresh, **keep)  # type: ignore[arg-type]


def smallest_gpus(model: PlannedModel, d: Deployment) -> MemoryPlan | None:
    """The plan on the smallest number of GPUs (a power of two) that fits and holds at least one whole context."""
    for gpus in GPU_COUNTS:
        try:
            plan = plan_memory(model.groups, model.arch, with_gpus(model, d, gpus))
        except HalfbyteError:
            continue  # heads or experts do not divide: not a candidate
        if plan.fits and plan.kv_tokens >= d.context:
            return plan
    return None


def smallest_change(model: PlannedModel, plan: MemoryPlan) -> Change | None:
    """The first change, cheapest for the user first, with which the server fits.

    Among changes of one kind (other fractions, other chunks) one that holds a whole context is preferred.
    """
    barely = None
    for what, changed, d in _changes(model, plan):
        if barely is not None and _kind(what) != _kind(barely.what):
            return barely
        try:
            found = plan_memory(changed.groups, changed.arch, d)
        except HalfbyteError:
            continue
        if found.fits and found.kv_tokens >= d.context:
            return Change(what, found)
        if found.fits and barely is None:
            barely = Change(what, found)
    return barely


def _kind(what: str) -> str:
    return re.sub(r"[\d.]+", "", what)[:8]


def _changes(model: PlannedModel, plan: MemoryPlan) -> Iterator[tuple[str, PlannedModel, Deployment]]:
    d, fraction = plan.deployment, plan.limits.fraction
    for other in sorted((n / 100 for n in range(30, 98)), key=lambda f: abs(f - fraction)):
        yield f"memory fraction {other:g} instead of {fraction:g}", model, replace(d, fraction=other)
    for chunk in (131072, 65536, 32768, 16384, 8192, 4096, 2048):
        if chunk < plan.limits.chunk:
            yield f"a chunk of {chunk} tokens instead of {plan.limits.chunk}", model, replace(d, chunk=chunk)
    if d.mtp_tokens:
        yield "no multi-token prediction", model, replace(d, mtp_tokens=0)
    if plan.limits.kv_dtype == "bf16":
        yield "an fp8 KV cache", model, replace(d, kv_dtype="fp8")
    page = d.facts.page_tokens(model.arch)
    for chunk in (plan.limits.chunk, 8192, 2048):
        shorter = plan_memory(model.groups, model.arch, replace(d, context=page, concurrency=None, chunk=chunk))
        each = -(-(d.concurrency or 1) // (d.kv_ranks * d.replicas))
        context = shorter.kv_tokens // each // page * page
        while context >= page:  # vLLM's workspaces shrink with the context, so the first guess may still be too long
            and_chunk = f" and a chunk of {chunk}" if chunk != plan.limits.chunk else ""
            yield f"a context of {context} tokens{and_chunk}", model, replace(d, context=context, chunk=chunk)
            context = context * 9 // 10 // page * page
            if context < 2048:
                break
    for recipe in cheaper_recipes(model):
        yield f"recipe {recipe}", model.with_recipe(recipe), d
    for gpus in GPU_COUNTS:
        if gpus > d.gpus:
            try:
                yield f"{gpus} GPUs instead of {d.gpus}", model, with_gpus(model, d, gpus)
            except HalfbyteError:
                continue


def cheaper_recipes(model: PlannedModel) -> list[str]:
    """Recipes that take fewer bytes than the model does now, the largest first."""
    sizes = {name: model.with_recipe(name).checkpoint_bytes for name in CHEAPER_RECIPES}
    smaller = [name for name in CHEAPER_RECIPES if sizes[name] < 0.99 * model.checkpoint_bytes]
    return sorted(smaller, key=lambda name: -sizes[name])


def what_it_buys(model: PlannedModel, plan: MemoryPlan) -> list[dict[str, object]]:
    """KV tokens with the next cheaper recipe that gives more of them, and with the next cheaper cache dtype."""
    d = plan.deployment
    recipes = [(f"recipe {recipe}", model.with_recipe(recipe), d) for recipe in cheaper_recipes(model)]
    cache_dtypes = []
    if plan.limits.kv_dtype == "bf16":
        cache_dtypes.append(("kv-dtype fp8", model, replace(d, kv_dtype="fp8")))
    elif d.facts.packed_cache_layouts and model.arch.mla is not None and plan.limits.kv_dtype in ("fp8", "fp8_ds_mla"):
        cache_dtypes.append(("kv-dtype nvfp4_ds_mla", model, replace(d, kv_dtype="nvfp4_ds_mla")))
    found: list[dict[str, object]] = []
    for options in (recipes, cache_dtypes):
        for what, changed, other in options:
            try:
                bought = plan_memory(changed.groups, changed.arch, other)
            except HalfbyteError:
                continue  # these ranks would cut what the recipe packs
            if bought.kv_tokens > plan.kv_tokens:
                found.append(
                    {
                        "change": what,
                        "kv_tokens": bought.kv_tokens,
                        "kv_tokens_more": bought.kv_tokens - plan.kv_tokens,
                        "weights_gib": round(bought.weights_bytes / GIB, 2),
                        "max_concurrency": max_concurrency(changed, bought),
                    }
                )
                break
    return found
