"""Hardware: can the pool run four-bit experts, natively or weight-only, and does the model fit it at its peak?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.kernels import NATIVE, SPARSE_FROM
from halfbyte.errors import HalfbyteError
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, plural, printable
from halfbyte.gate.pools import Pool, pools_of
from halfbyte.gate.registry import rule
from halfbyte.models.architecture import Architecture
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.weight_groups import WeightGroup


@rule("hardware.stated", "deny", "The policy wants to know where the checkpoint will run: --hardware or --cluster.")
def stated(facts: Facts) -> Iterator[Found]:
    if facts.policy.hardware.required and not (facts.options.hardware or facts.options.cluster):
        yield Found("no target hardware is given, the policy asks for it: --hardware b200x8 or --cluster", missing=True)


@rule(
    "hardware.capability",
    "deny",
    "Four-bit tensor cores are compute major 10 and 12; `gpu.family=blackwell` covers both, and their kernels differ. "
    "On Hopper the experts run weight-only, with other numerics, if the policy accepts it.",
)
def capability(facts: Facts) -> Iterator[Found]:
    pools = pools_of(facts)
    if not pools.usable and pools.asked:
        reason = f": {pools.refused[0]}" if pools.refused else ""
        yield Found(f"the target has no usable GPU{reason}")
        return
    yield from (Found(message, at_most="warn") for message in pools.refused)
    verdicts = [(pool, _incapable(facts, pool)) for pool in pools.usable]
    if verdicts and all(reason is not None for _, reason in verdicts):
        yield Found(str(verdicts[0][1]))


def _incapable(facts: Facts, pool: Pool) -> str | None:
    """Why this pool cannot serve the checkpoint, None if it can."""
    name = f"{pool.product} (compute {pool.major}.{pool.minor})"
    sparse = facts.arch is not None and facts.arch.indexer is not None
    if sparse and pool.major < SPARSE_FROM:
        return f"{name}: no engine has sparse-attention kernels for it"
    if pool.major in NATIVE:
        return None
    if pool.major not in facts.policy.hardware.fallback:
        wanted = " or ".join(map(str, NATIVE))
        return f"{name}: no FP4 tensor cores (compute major {wanted}), and the policy accepts no fallback on it"
    for engine in map(ENGINES.__getitem__, facts.engines):
        if (pool.major, pool.minor) < engine.weight_only_from:
            least = ".".join(map(str, engine.weight_only_from))
            return f"{name}: {engine.title}'s weight-only kernels begin at compute {least}"
    return None


@rule("hardware.fallback", "warn", "Weight-only serving keeps activations in 16 bits: less speed, other numerics.")
def fallback(facts: Facts) -> Iterator[Found]:
    usable = pools_of(facts).usable
    if usable and not any(pool.major in NATIVE for pool in usable):
        for pool in usable:
            if _incapable(facts, pool) is None:
                yield Found(f"{pool.product}: no FP4 tensor cores, experts would run weight-only (Marlin or Humming)")
                return


@rule("hardware.sm120", "warn", "Sparse attention on compute 12.x needs newer kernels than most images carry.")
def sm120(facts: Facts) -> Iterator[Found]:
    sparse = facts.arch is not None and facts.arch.indexer is not None
    for pool in pools_of(facts).usable:
        if pool.major == 12 and sparse:
            yield Found(f"{pool.product}: check that the engine's image has SM120 sparse-attention kernels")
            return


@rule("hardware.fits", "deny", "The peak of a running server must fit, not the weights alone.")
def fits(facts: Facts) -> Iterator[Found]:
    if facts.arch is None or facts.roles is None or not facts.alike or "integrity.parts" in facts.problems:
        return
    able = [pool for pool in pools_of(facts).usable if _incapable(facts, pool) is None]
    groups: list[WeightGroup] | None = None
    reasons: list[str] = []
    for pool in able:
        groups = groups or weight_groups(facts)
        for engine in facts.engines:
            reason = _unfit(facts, facts.arch, pool, engine, groups)
            if reason is None:
                return
            reasons.append(f"{engine} on {plural(pool.gpus, 'GPU')} {pool.product}: {reason}")
    if reasons:
        yield Found(reasons[0])


def weight_groups(facts: Facts) -> list[WeightGroup]:
    """The weights as the planner sums them, from entries that were made already."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for entry, count, size in facts.alike:
        role = entry.role
        key = (role.role, role.mtp, role.layer, role.projection, entry.shape, entry.format)
        total = sums.setdefault(key, [0, 0])
        total[0] += count
        total[1] += size
    return [
        WeightGroup(role, mtp, layer, projection, shape, count, form, size)
        for (role, mtp, layer, projection, shape, form), (count, size) in sums.items()
    ]


def _unfit(facts: Facts, arch: Architecture, pool: Pool, engine: str, groups: list[WeightGroup]) -> str | None:
    wanted = facts.policy.hardware
    try:
        gpu = find_gpu(pool.product)
    except HalfbyteError:
        return f"the hardware catalogue does not know {printable(pool.product, 60)}"
    ranks = [wanted.tensor_parallel] if wanted.tensor_parallel else _ranks(pool)
    last = "no parallel layout divides the model"
    for tp in ranks:
        try:
            d: Deployment = make_deployment(arch, gpu, tp, engine, tp=tp, context=wanted.context or 0)
            plan: MemoryPlan = plan_memory(groups, arch, replace(d, mtp_tokens=0))
        except HalfbyteError as error:
            last = error.message
            continue
        if not plan.fits:
            return f"does not fit: {plan.problems[0]}"
        if wanted.context is not None and plan.kv_tokens < wanted.context:
            return f"its cache holds {plan.kv_tokens:,} tokens, the policy wants a context of {wanted.context:,}"
        return None
    return last


def _ranks(pool: Pool) -> list[int]:
    """Numbers of ranks to try, all GPUs of a node first; what is left over makes more replicas."""
    most = min(pool.gpus, pool.node_gpus or pool.gpus)
    return [n for n in range(most, 0, -1) if most % n == 0]
