"""`plan.json`: the capacity plan that serve, deploy and gate read."""

from typing import Any, ClassVar

from pydantic import Field

from halfbyte.errors import UsageError
from halfbyte.evidence.record import JsonDocument, Number, Record

PLAN_VERSION = 1


class MemoryOfGpu(Record):
    """GiB of one GPU. peak: the most that is live at once. headroom: usable less peak; negative if it does not fit."""

    usable_gib: Number
    weights_gib: Number
    kv_gib: Number
    peak_gib: Number
    headroom_gib: Number


class PlannedTerm(Record):
    """One line of the sum: when it is live, its formula with the numbers put in, and who says so."""

    name: str
    phase: str
    gib: Number
    formula: str
    source: str


class PlannedDeployment(Record):
    """The server, every default filled in. concurrency: as asked, null if it was not."""

    engine: str
    gpu: str
    gpus: int
    tp: int
    pp: int
    dp: int
    ep: int
    dcp: int
    dp_attention: bool
    replicas: int
    context: int
    concurrency: int | None
    chunk: int
    kv_dtype: str
    memory_fraction: Number
    max_sequences: int
    cuda_graph_max_bs: int
    mtp_tokens: int
    draft_gib: Number | None


class SpeedAtSlo(Record):
    """The largest concurrency that holds the service level."""

    concurrency: int
    requests_per_s: Number
    output_tokens_per_s: Number
    ttft_ms: Number
    tpot_ms: Number


class Throughput(Record):
    """Estimated, at one concurrency; empty if nothing fits. efficiency: the factors of the estimate."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrency: int | None = None
    ttft_ms: Number | None = None
    tpot_ms: Number | None = None
    ttft_ms_range: list[Number] = Field(default_factory=list)
    tpot_ms_range: list[Number] = Field(default_factory=list)
    output_tokens_per_s: Number | None = None
    input_tokens_per_s: Number | None = None
    requests_per_s: Number | None = None
    tokens_per_step: Number | None = None
    efficiency: dict[str, Any] = Field(default_factory=dict)
    at_slo: SpeedAtSlo | None = None


class Cost(Record):
    """Dollars; empty without a price. usd_per_million: tokens, by kind."""

    price_per_gpu_hour: Number | None = None
    pool_per_hour: Number | None = None
    utilisation: Number | None = None
    output_weight: Number | None = None
    usd_per_million: dict[str, Number] = Field(default_factory=dict)
    output_only_usd_per_million: dict[str, Number] = Field(default_factory=dict)
    usd_per_request_by_output_tokens: dict[str, Number] = Field(default_factory=dict)
    breakeven: dict[str, Number] = Field(default_factory=dict)
    usd_per_hour_by_tenant: dict[str, Number] = Field(default_factory=dict)


class Bought(Record):
    """What a cheaper recipe or cache dtype gives."""

    change: str
    kv_tokens: int
    kv_tokens_more: int
    weights_gib: Number
    max_concurrency: int


class PlanDocument(JsonDocument):
    """The whole of `plan.json`; docs/plan.md explains every key."""

    what: ClassVar = "a plan"
    version: ClassVar = ("plan_version", PLAN_VERSION)
    hint: ClassVar = "write it with halfbyte plan -o"
    error: ClassVar = UsageError
    ascii: ClassVar = True

    fits: bool
    checkpoint_bytes: int
    per_gpu: MemoryOfGpu
    terms: list[PlannedTerm]
    kv_tokens: int
    kv_bytes_per_token: Number
    max_concurrency: int
    max_context: int
    engine_flags: list[str]
    throughput: Throughput
    cost: Cost
    plan_version: int
    target: str
    model_type: str
    recipe: str | None
    deployment: PlannedDeployment
    peaks_gib: dict[str, Number]
    peak_phase: str
    max_chunk: int
    kv_pool: str
    smallest_gpus: int | None
    cheaper: list[Bought]
    problems: list[str]
    smallest_change: str | None
    warnings: list[str]
    traffic: dict[str, Any] | None = None
