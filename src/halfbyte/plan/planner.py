"""`plan`: one function from a target and flags to an auditable answer. The command line calls this and prints it."""

from collections.abc import Sequence
from typing import Any

from halfbyte.engines.catalogue import DEFAULT_ENGINE
from halfbyte.engines.server import GIB
from halfbyte.engines.sources import KERNELS
from halfbyte.errors import UsageError, said
from halfbyte.plan import answers
from halfbyte.plan.cost import cost_json, tenant_json
from halfbyte.plan.cuts import cut_warnings
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.flags import engine_flags
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.result import Plan
from halfbyte.plan.target import PlannedModel, resolve
from halfbyte.plan.throughput import Speed, SpeedModel, speed_json
from halfbyte.plan.trace import Request, read_trace
from halfbyte.plan.work import work_of
from halfbyte.plan.workload import Workload


def plan(target: str, gpu: str, gpus: int, options: PlanOptions | None = None, **given: Any) -> Plan:
    """Plan one server. given: fields of PlanOptions by name, instead of `options`.

    Raises HalfbyteError for input that cannot be; an unfit plan is a result, not an error.
    """
    options = _options(options, given)
    chosen = find_gpu(gpu, options.hardware, options.gpu_memory_gib)
    requests = read_trace(options.traffic, options.seed) if options.traffic is not None else None
    model = resolve(target, options.recipe, options.timeout)
    return plan_deployment(model, _deployment(model, chosen, gpus, options), options.workload, requests)


def compare(
    target: str, machines: Sequence[tuple[str, int]], options: PlanOptions | None = None, **given: Any
) -> list[Plan]:
    """One plan for each (GPU, count); the model is read once."""
    options = _options(options, given)
    pools = [(find_gpu(gpu, options.hardware), gpus) for gpu, gpus in machines]
    model = resolve(target, options.recipe, options.timeout)
    return [plan_deployment(model, _deployment(model, gpu, gpus, options), options.workload) for gpu, gpus in pools]


def _options(options: PlanOptions | None, given: dict[str, Any]) -> PlanOptions:
    return options or PlanOptions(**{name: value for name, value in given.items() if value is not None})


def plan_for(model: PlannedModel, gpu: Gpu, gpus: int, options: PlanOptions) -> Plan:
    """Plan one server for a model and a GPU that are known already. Raises UsageError for a layout that cannot be."""
    return plan_deployment(model, _deployment(model, gpu, gpus, options), options.workload)


def _deployment(model: PlannedModel, gpu: Gpu, gpus: int, options: PlanOptions) -> Deployment:
    if options.mtp and not model.has_mtp and options.draft_gib is None:
        hint = said("leave out {mtp}, or give {draft_gib} for a draft model of its own")
        raise UsageError("the checkpoint holds no MTP layer to draft with", hint=hint)
    return make_deployment(
        model.arch,
        gpu,
        gpus,
        options.engine or DEFAULT_ENGINE,
        tp=options.tp,
        ep=options.ep,
        dp=options.dp,
        pp=options.pp,
        dcp=options.dcp,
        context=options.context or 0,
        concurrency=options.concurrency,
        chunk=options.chunk,
        kv_dtype=options.kv_dtype,
        fraction=options.mem_fraction,
        mtp_tokens=options.mtp,
        draft_gib=options.draft_gib,
        max_sequences=options.max_sequences,
        graph_batch=options.cuda_graph_max_bs,
        max_total_tokens=options.max_total_tokens,
        engine_version=options.engine_version,
        forecast_graphs=options.forecast_graphs,
    )


def plan_deployment(
    model: PlannedModel, d: Deployment, workload: Workload, requests: Sequence[Request] | None = None
) -> Plan:
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


def _routing(model: PlannedModel, workload: Workload) -> tuple[float, ...] | None:
    counts, experts = workload.routing, model.arch.experts
    if counts is not None and len(counts) != experts:
        raise UsageError(f"measured routing has {len(counts)} counts, wanted {experts}")
    return counts


def _speeds(
    model: PlannedModel, memory: MemoryPlan, speeds: SpeedModel, workload: Workload
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
