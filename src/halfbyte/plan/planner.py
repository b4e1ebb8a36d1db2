"""`plan`: one function from a target and flags to an auditable answer. The command line calls this and prints it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from halfbyte.errors import OutputError, UsageError
from halfbyte.plan import answers
from halfbyte.plan.cost import cost_json, tenant_json
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.document import PLAN_VERSION
from halfbyte.plan.engines import GIB
from halfbyte.plan.flags import engine_flags
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.target import Model, resolve
from halfbyte.plan.throughput import Speed, SpeedModel, speed_json
from halfbyte.plan.trace import Request, read_trace
from halfbyte.plan.work import work_of
from halfbyte.plan.workload import Workload


@dataclass(frozen=True)
class Plan:
    """The whole answer. `as_json` is `plan.json`, which serve, deploy and gate read."""

    model: Model
    memory: MemoryPlan
    workload: Workload
    max_concurrency: int
    max_context: int
    max_chunk: int
    engine_flags: list[str]
    smallest_gpus: MemoryPlan | None
    buys: list[dict[str, Any]]
    change: answers.Change | None
    throughput: dict[str, Any]
    cost: dict[str, Any]
    traffic: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return self.memory.fits

    def as_json(self) -> dict[str, Any]:
        memory, d = self.memory, self.memory.deployment
        document: dict[str, Any] = {
            "fits": self.fits,
            "checkpoint_bytes": self.model.checkpoint_bytes,
            "per_gpu": {
                "usable_gib": round(memory.usable_bytes / GIB, 3),
                "weights_gib": round(memory.weights_bytes / GIB, 3),
                "kv_gib": round(memory.kv_bytes / GIB, 3),
                "peak_gib": round(memory.peak_bytes / GIB, 3),
                "headroom_gib": round(memory.headroom_bytes / GIB, 3),
            },
            "terms": [term.as_json() for term in memory.terms],
            "kv_tokens": memory.kv_tokens,
            "kv_bytes_per_token": round(memory.kv.token_bytes, 2),
            "max_concurrency": self.max_concurrency,
            "max_context": self.max_context,
            "engine_flags": self.engine_flags,
            "throughput": self.throughput,
            "cost": self.cost,
        }
        document |= {
            "plan_version": PLAN_VERSION,
            "target": self.model.name,
            "model_type": self.model.arch.model_type,
            "recipe": self.model.recipe,
            "deployment": deployment_json(d, memory),
            "peaks_gib": {phase: round(size / GIB, 3) for phase, size in memory.peaks.items()},
            "peak_phase": memory.peak_phase,
            "max_chunk": self.max_chunk,
            "smallest_gpus": self.smallest_gpus.deployment.gpus if self.smallest_gpus else None,
            "cheaper": self.buys,
            "problems": list(memory.problems),
            "smallest_change": self.change.what if self.change else None,
            "warnings": self.warnings,
        }
        if self.traffic is not None:
            document["traffic"] = self.traffic
        return document

    def write(self, path: str | Path) -> None:
        """Write plan.json whole or not at all. Raises OutputError."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self.as_json(), indent=1) + "\n")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def deployment_json(d: Deployment, memory: MemoryPlan) -> dict[str, Any]:
    """The deployment with every default filled in."""
    limits = memory.limits
    return {
        "engine": d.engine,
        "gpu": d.gpu.name,
        "gpus": d.gpus,
        "tp": d.tp,
        "pp": d.pp,
        "dp": d.dp,
        "ep": d.ep,
        "dcp": d.dcp,
        "dp_attention": d.dp_attention,
        "replicas": d.replicas,
        "context": d.context,
        "concurrency": d.concurrency,
        "chunk": limits.chunk,
        "kv_dtype": limits.kv_dtype,
        "memory_fraction": limits.fraction,
        "max_sequences": limits.max_sequences,
        "cuda_graph_max_bs": limits.graph_batch,
        "mtp_tokens": d.mtp_tokens,
    }


def plan(
    target: str,
    gpu: str,
    gpus: int,
    *,
    engine: str = "sglang",
    recipe: str | None = None,
    tp: int | None = None,
    ep: int | None = None,
    dp: int | None = None,
    pp: int | None = None,
    dcp: int | None = None,
    context: int | None = None,
    concurrency: int | None = None,
    chunk: int | None = None,
    kv_dtype: str | None = None,
    mem_fraction: float | None = None,
    mtp: int = 0,
    gpu_memory_gib: float | None = None,
    max_sequences: int | None = None,
    cuda_graph_max_bs: int | None = None,
    max_total_tokens: int | None = None,
    engine_version: str | None = None,
    hardware: Path | None = None,
    workload: Workload | None = None,
    traffic: str | Path | None = None,
    seed: int = 0,
) -> Plan:
    """Plan one server. Raises HalfbyteError for input that cannot be; an unfit plan is a result, not an error."""
    workload = workload or Workload()
    requests = read_trace(traffic, seed) if traffic is not None else None
    if context is not None and context < 1:
        raise UsageError(f"a context of {context} tokens; wanted at least 1")
    chosen = find_gpu(gpu, hardware, gpu_memory_gib)
    model = resolve(target, recipe)
    if mtp and not model.has_mtp:
        raise UsageError("the checkpoint holds no MTP layer to draft with", hint="leave out --mtp")
    d = make_deployment(
        model.arch,
        chosen,
        gpus,
        engine,
        tp,
        ep,
        dp,
        pp,
        dcp,
        context=context or 0,
        concurrency=concurrency,
        chunk=chunk,
        kv_dtype=kv_dtype,
        fraction=mem_fraction,
        mtp_tokens=mtp,
        max_sequences=max_sequences,
        graph_batch=cuda_graph_max_bs,
        max_total_tokens=max_total_tokens,
        engine_version=engine_version,
    )
    return plan_deployment(model, d, workload, requests)


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
        warnings=_warnings(memory, concurrency, workload),
    )


def _routing(model: Model, workload: Workload) -> tuple[float, ...] | None:
    counts, experts = workload.routing, model.arch.experts
    if counts is not None and (len(counts) != experts or min(counts) < 0 or sum(counts) <= 0):
        raise UsageError(f"measured routing has {len(counts)} counts, wanted {experts} that are not negative")
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
    if workload.price is not None and workload.price <= 0:
        raise UsageError(f"a price of {workload.price:g} dollars per GPU-hour; wanted more than 0")
    if speed is None:
        return {}
    return cost_json(
        speeds,
        speed,
        workload.price,
        workload.input_tokens,
        workload.output_tokens,
        workload.utilisation,
        workload.reasoning_share,
        workload.api_price,
    )


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
        found.append("neither engine has sparse-attention kernels for this GPU before Hopper (serving notes 2)")
    if memory.headroom_bytes < 0.02 * memory.usable_bytes and memory.fits:
        found.append(f"{memory.headroom_bytes / GIB:.1f} GiB of headroom is less than 2 % of the GPU")
    return found


def compare(target: str, machines: list[tuple[str, int]], recipe: str | None = None, **flags: Any) -> list[Plan]:
    """One plan for each (GPU, count); the model is read once."""
    model = resolve(target, recipe)
    workload, hardware = flags.pop("workload", None) or Workload(), flags.pop("hardware", None)
    names = {"mem_fraction": "fraction", "mtp": "mtp_tokens", "cuda_graph_max_bs": "graph_batch"}
    found = []
    for gpu, gpus in machines:
        limits = {names.get(key, key): value for key, value in flags.items() if value is not None}
        d = make_deployment(model.arch, find_gpu(gpu, hardware), gpus, limits.pop("engine", "sglang"), **limits)
        found.append(plan_deployment(model, replace(d), workload))
    return found
