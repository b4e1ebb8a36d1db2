"""The whole answer for one deployment, and the document that `plan.json` is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halfbyte.engines.server import GIB
from halfbyte.evidence.plan import PLAN_VERSION, PlanDocument
from halfbyte.plan.answers import Change
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.memory import MemoryPlan
from halfbyte.plan.target import PlannedModel
from halfbyte.plan.workload import Workload


@dataclass(frozen=True)
class Plan:
    """The whole answer. `as_json` is `plan.json`, which serve, deploy and gate read."""

    model: PlannedModel
    memory: MemoryPlan
    workload: Workload
    max_concurrency: int
    max_context: int
    max_chunk: int
    engine_flags: list[str]
    smallest_gpus: MemoryPlan | None
    buys: list[dict[str, Any]]
    change: Change | None
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
            "kv_pool": memory.pool,
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
        PlanDocument(**self.as_json()).write(path)


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
        "draft_gib": d.draft_gib,
    }
