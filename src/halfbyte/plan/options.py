"""What `plan` can be asked for; every default stands here and in `Workload`, alone."""

from dataclasses import dataclass, field
from pathlib import Path

from halfbyte.checkpoint.names import REMOTE_SECONDS
from halfbyte.plan.workload import Workload


@dataclass(frozen=True)
class PlanOptions:
    """recipe: plan the model in this format instead of its own. hardware: YAML file with more GPUs. gpu_memory_gib:
    that a process sees, instead of the catalogue's. traffic: trace file or `reasoning:REQUESTS@PER_SECOND`, seed: of
    generated traffic. timeout: seconds that a server is given in all.

    All else is what a server is started with, by the names of its flags; None means the engine's own default. engine:
    None for the one planned by default. mtp: draft tokens a step. draft_gib: of a draft model of its own, per GPU.
    """

    recipe: str | None = None
    workload: Workload = field(default_factory=Workload)
    hardware: Path | None = None
    gpu_memory_gib: float | None = None
    timeout: float = REMOTE_SECONDS
    traffic: str | Path | None = None
    seed: int = 0
    engine: str | None = None
    tp: int | None = None
    ep: int | None = None
    dp: int | None = None
    pp: int | None = None
    dcp: int | None = None
    context: int | None = None
    concurrency: int | None = None
    chunk: int | None = None
    kv_dtype: str | None = None
    mem_fraction: float | None = None
    mtp: int = 0
    draft_gib: float | None = None
    max_sequences: int | None = None
    cuda_graph_max_bs: int | None = None
    max_total_tokens: int | None = None
    engine_version: str | None = None
    forecast_graphs: bool | None = None
