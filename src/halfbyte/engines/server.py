"""What an engine's formulas ask of a server: the GPU, the parallelism, the limits that were given.

`plan.deployment.Deployment` and `plan.hardware.Gpu` are such; the engines stand below the plan and know only this.
"""

from dataclasses import dataclass
from typing import Protocol

GIB = 1 << 30
MIB = 1 << 20


class Gpu(Protocol):
    """family: sm80, sm89, sm90, sm100, sm120 or rocm. platform: cuda or rocm."""

    @property
    def name(self) -> str: ...
    @property
    def memory_gib(self) -> float: ...
    @property
    def platform(self) -> str: ...
    @property
    def family(self) -> str: ...


class Server(Protocol):
    """One server as it was asked for; None is the engine's own default. version: its numbers, newest if not given."""

    @property
    def gpu(self) -> Gpu: ...
    @property
    def version(self) -> tuple[int, ...]: ...
    @property
    def tp(self) -> int: ...
    @property
    def pp(self) -> int: ...
    @property
    def dp(self) -> int: ...
    @property
    def ep(self) -> int: ...
    @property
    def dcp(self) -> int: ...
    @property
    def dp_attention(self) -> bool: ...
    @property
    def context(self) -> int: ...
    @property
    def concurrency(self) -> int | None: ...
    @property
    def chunk(self) -> int | None: ...
    @property
    def kv_dtype(self) -> str | None: ...
    @property
    def fraction(self) -> float | None: ...
    @property
    def mtp_tokens(self) -> int: ...
    @property
    def max_sequences(self) -> int | None: ...
    @property
    def graph_batch(self) -> int | None: ...
    @property
    def max_total_tokens(self) -> int | None: ...
    @property
    def forecast_graphs(self) -> bool | None: ...


@dataclass(frozen=True)
class Layout:
    """Number of ranks that share each part: 1 means a full copy on every rank."""

    attention: int
    expert_width: int
    expert_count: int
    dense: int
    shared: int
    embedding: int
    head: int


@dataclass(frozen=True)
class Limits:
    """What a server settles on.

    chunk: tokens of one forward pass on a rank (SGLang's chunk, divided by dp under DP attention; vLLM's budget).
    max_sequences: running sequences. graph_batch: largest captured decode batch. fraction: of the engine's own kind.
    """

    chunk: int
    max_sequences: int
    graph_batch: int
    fraction: float
    kv_dtype: str


def process_bytes(gpu: Gpu) -> int:
    """CUDA or HIP context and libraries. Posted free memory before load, one GPU: H100 79.18 - 78.48 GiB."""
    return int((0.65 if gpu.platform == "cuda" else 1.0) * GIB)


def communicator_bytes(gpu: Gpu, world: int, dcp: int) -> int:
    """NCCL/RCCL and custom all-reduce buffers of a replica with more than one GPU, for each group of ranks.

    Posted free memory before load at TP8, less the context: RTX PRO 6000 0.24 (custom all-reduce off) and 1.02 GiB,
    MI355X 3.5 GiB; a 182.18 GiB start on a GB200-class card 1.48. The plan takes 1.0 and 3.5.
    """
    if world == 1:
        return 0
    groups = 1 + (dcp > 1)
    return int(groups * (1.0 if gpu.platform == "cuda" else 3.5) * GIB)
