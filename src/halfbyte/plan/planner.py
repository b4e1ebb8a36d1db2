"""`plan`: one function from a target and flags to an auditable answer. The command line calls this and prints it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from halfbyte.engines.catalogue import DEFAULT_ENGINE
from halfbyte.engines.server import GIB
from halfbyte.engines.sources import KERNELS
from halfbyte.errors import UsageError
from halfbyte.plan import answers
from halfbyte.plan.cost import cost_json, tenant_json
from halfbyte.plan.cuts import cut_warnings
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.flags import engine_flags
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.result import Plan
from halfbyte.plan.target import Model, resolve
from halfbyte.plan.throughput import Speed, SpeedModel, speed_json
from halfbyte.plan.trace import Request, read_trace
from halfbyte.plan.work import work_of
from halfbyte.plan.workload import Workload


class Flags(TypedDict, total=False):
    """What a server is started with, by the names of the command line. None or absent: the engine's own default."""

    engine: str
    tp: int | None
    ep: int | None
    dp: int | None
    pp: int | None
    dcp: int | None
    context: int | None
    concurrency: int | None
    chunk: int | None
    kv_dtype: str | None
    mem_fraction: float | None
    mtp: int
    draft_gib: float | None
    max_sequences: int | None
    cuda_graph_max_bs: int | None
    max_total_tokens: int | None
    engine_version: str | None
    forecast_graphs: bool | None


RENAMED = {"mem_fraction": "fraction", "mtp": "mtp_tokens", "cuda_graph_max_bs": "graph_batch"}
"""Flags that `Deployment` calls otherwise."""


def plan(
    target: str,
    gpu: str,
    gpus: int,
    *,
    recipe: str | None = None,
    workload: Workload | None = None,
    hardware: Path | None = None,
    gpu_memory_gib: float | None = None,
    traffic: str | Path | None = None,
    seed: int = 0,
    **flags: Unpack[Flags],
) -> Plan:
    """Plan one server. Raises HalfbyteError for input that cannot be; an unfit plan is a result, not an error."""
    chosen = find_gpu(gpu, hardware, gpu_memory_gib)
    requests = read_trace(traffic, seed) if traffic is not None else None
    model = resolve(target, recipe)
    return plan_deployment(model, _deployment(model, chosen, gpus, flags), workload or Workload(), requests)


def compare(
    target: str,
    machines: Sequence[tuple[str, int]],
    *,
    recipe: str | None = None,
    workload: Workload | None = None,
    hardware: Path | None = None,
    **flags: Unpack[Flags],
) -> list[Plan]:
    """One plan for each (GPU, count); the model is read once."""
    pools = [(find_gpu(gpu, hardware), gpus) for gpu, gpus in machines]
    model = resolve(target, recipe)
    return [plan_deployment(model, _deployment(model, gpu, gpus, flags), workload or Workload()) for gpu, gpus in pools]


def _deployment(model: Model, gpu: Gpu, gpus: int, flags: Flags) -> Deployment:
    if flags.get("mtp") and not model.has_mtp and flags.get("draft_gib") is None:
        hint = "leave out --mtp, or give --draft-gib for a draft model of its own"
        raise UsageError("the checkpoint holds no MTP layer to draft with", hint=hint)
    given = {RENAMED.get(name, name): value for name, value in flags.items() if value is not None}
    engine = str(given.pop("engine", DEFAULT_ENGINE))
    return make_deployment(model.arch, gpu, gpus, engine, **given)  # type: ignore[arg-type]


def plan_deployment(model: Model, d: Deployment, workload: Workload, requests: Sequence[Request] | None = None) -> Plan:
    """The answers for one deployment of a model already read."""
    memory = plan_memory(model.groups, model.arch, d)
    speeds = SpeedModel(work_of(model.groups, model.arch, memory), _routing(model, workload))
    concurrency = answers.max_concurrency(model, memory)
    speed, slo = _speeds(model, memory, speeds, workload)
    throughput = speed_json(speeds, speed, slo, workload.input_tokens, workload.output_tokens) if speed else {}
    cost = _cost(speeds, speed, workload)
    simulated = None
    if requests is not None and memory.fits:
        from halfbyte.plan.sizing import size_for_trace  # only traffic needs numpy

        simulated = size_for_trace(requests, speeds, memory, workload)
        if cost:
            cost["usd_per_hour_by_tenant"] = tenant_json(requests, cost, simulated["busy_share"])
    return Plan(
        model=model,
        memory=memory,
        workload=workload,
        max_concurrency=concurrency,
        max_context=answers.max_context(model, memory),
        max_chunk=answers.largest_chunk(model, d),
        engine_flags=engine_flags(model, memory),
        smallest_gpus=answers.smallest_gpus(model, d),
        buys=answers.what_it_buys(model, memory),
        change=None if memory.fits else answers.smallest_change(model, memory),
        throughput=throughput,
        cost=cost,
        traffic=simulated,
        warnings=_warnings(memory, concurrency, workload) + cut_warnings(model.groups, model.arch, d),
    )


def _routing(model: Model, workload: Workload) -> tuple[float, ...] | None:
    counts, experts = workload.routing, model.arch.experts
    if counts is not None and len(counts) != experts:
        raise UsageError(f"measured routing has {len(counts)} counts, wanted {experts}")
    return counts


def _speeds(
    model: Model, memory: MemoryPlan, speeds: SpeedModel, workload: Workload
) -> tuple[Speed | None, Speed | None]:
    """Speed at the asked (or largest possible, at most 64) concurrency, and at the SLO; None where nothing fits."""
    d = memory.deployment
    length = workload.input_tokens + workload.output_tokens
    most = min(answers.max_concurrency(model, memory, length), memory.limits.max_sequences * d.kv_ranks * d.replicas)
    if most < 1 or not memory.fits:
        return None, None
    speed = speeds.at(min(d.concurrency or 64, most), workload.input_tokens, workload.output_tokens)
    slo = speeds.at_slo(most, workload.input_tokens, workload.output_tokens, workload.slo_ttft_ms, workload.slo_tpot_ms)
    return speed, slo


def _cost(speeds: SpeedModel, speed: Speed | None, workload: Workload) -> dict[str, Any]:
    if speed is None or workload.price is None:
        return {}
    return cost_json(speeds, speed, workload, workload.price)


def _warnings(memory: MemoryPlan, concurrency: int, workload: Workload) -> list[str]:
    d, found = memory.deployment, []
    if memory.fits and concurrency == 0:
        found.append(
            f"the server starts, but its cache of {memory.kv_tokens} tokens holds no sequence of {d.context} tokens"
        )
    length = workload.input_tokens + workload.output_tokens
    if length > d.context:
        found.append(f"the typical request of {length} tokens (for speed and cost) is longer than the context")
    family = d.gpu.family
    if family in ("sm80", "sm89") and memory.kv.index:
        found.append(f"neither engine has sparse-attention kernels for this GPU before Hopper ({KERNELS})")
    if memory.headroom_bytes < 0.02 * memory.usable_bytes and memory.fits:
        found.append(f"{memory.headroom_bytes / GIB:.1f} GiB of headroom is less than 2 % of the GPU")
    return found
