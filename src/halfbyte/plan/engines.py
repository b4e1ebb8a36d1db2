"""What each engine does by itself: default limits, cache layouts, fixed memory, and where a version changed it.

Read in vLLM 0.33.0 and SGLang 0.5.23 (paths in the reference notes, sections 3.2 to 3.4) unless a posted server log is
named. Figures marked "posted" come from `observed-memory.jsonl`.
"""

from dataclasses import dataclass

from halfbyte.errors import UsageError
from halfbyte.models.architecture import Architecture
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.hardware import Gpu

GIB = 1 << 30
MIB = 1 << 20
PAGE_TOKENS = 64
INDEX_SCALE_BYTES = 4
GRAPH_FORECAST = 2.0
KV_DTYPES = ("auto", "bf16", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla")


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


def limits(arch: Architecture, d: Deployment) -> Limits:
    """The engine's defaults, with everything that is given put over them."""
    chunk = d.chunk if d.chunk is not None else _default_chunk(d)
    if d.dp_attention:
        chunk = max(chunk // d.dp, 1)
    sequences = d.max_sequences or d.concurrency
    if sequences is None:
        sequences = _default_sequences(d)
    graph = d.graph_batch
    if graph is None:
        graph = min(512 if d.engine == "vllm" or d.tp >= 4 else 256, sequences * (2 if d.engine == "vllm" else 1))
    fraction = d.fraction if d.fraction is not None else _default_fraction(arch, d, chunk, graph)
    return Limits(chunk, sequences, graph, fraction, kv_dtype(arch, d))


def _default_chunk(d: Deployment) -> int:
    gib = d.gpu.memory_gib
    if d.engine == "sglang":
        return 16384 if gib > 160 else 8192 if gib > 60 else 4096 if gib > 35 else 2048
    return 16384 if gib >= 160 else 8192 if _vllm_large(d) else 2048


def _default_sequences(d: Deployment) -> int:
    if d.engine == "vllm":
        return 1024 if _vllm_large(d) else 256
    return 2048


def _vllm_large(d: Deployment) -> bool:
    """vLLM's own class of large GPUs (`EngineArgs.get_batch_defaults`): 70 GiB or more, but not an A100."""
    return d.gpu.memory_gib >= 70 and not d.gpu.name.startswith("a100")


def _default_fraction(arch: Architecture, d: Deployment, chunk: int, graph: int) -> float:
    """SGLang: `handle_gpu_memory_settings` (arg_groups/memory_hook.py), in MiB. vLLM: 0.92 (0.33), 0.9 up to 0.19."""
    if d.engine == "vllm":
        return 0.92 if d.version >= (0, 20) else 0.9
    total = d.gpu.memory_gib * 1024
    reserved = 512 + 1.5 * chunk + 1024 * d.tp * d.pp / 8 + 2 * graph
    if arch.mla is not None:
        reserved += 1536
    if d.dp_attention:
        reserved += (3 + (1.5 if graph > 300 else 0)) * graph * d.dp
    if d.gpu.memory_gib > 60:
        reserved = max(reserved, 10240)
    return float(f"{max((total - reserved) / total, 0.05):.3f}")


def kv_dtype(arch: Architecture, d: Deployment) -> str:
    """`fp8`, `bf16`, `fp8_ds_mla` or `nvfp4_ds_mla`: what the server's cache holds."""
    asked = (d.kv_dtype or "auto").lower()
    if asked not in KV_DTYPES:
        raise UsageError(f"unknown KV cache dtype {asked[:40]!r}", hint=f"known: {', '.join(KV_DTYPES)}")
    if asked.endswith("_ds_mla"):
        if d.engine != "vllm" or arch.mla is None:
            raise UsageError(f"{asked} is a cache layout of vLLM for latent attention", hint="use fp8 or bf16")
        return asked
    if asked != "auto":
        return "fp8" if asked.startswith("fp8") else "bf16"
    sparse = arch.indexer is not None
    return "fp8" if sparse and d.gpu.family == "sm100" else "bf16"


def latent_bytes(arch: Architecture, d: Deployment, dtype: str) -> int:
    """Bytes of one token's latent in one layer.

    BF16 2 * (kv_rank + rope); raw fp8 one byte a number; packed fp8 = kv_rank + 4 float32 scales + BF16 rotary part
    (FlashMLA's layout, sparse attention only); nvfp4_ds_mla 352 for a latent of 512 + 64.
    """
    assert arch.mla is not None
    if dtype == "bf16":
        return 2 * arch.mla.latent
    packed = arch.mla.kv_rank + 16 + 2 * arch.mla.rope
    if dtype == "nvfp4_ds_mla":
        return 352 * arch.mla.latent // 576
    if dtype == "fp8_ds_mla":
        return packed
    if arch.indexer is None:
        return arch.mla.latent
    if d.engine == "vllm":
        return arch.mla.latent if d.gpu.family == "sm100" else packed
    # SGLang on Hopper runs FlashMLA for an fp8 cache. On SM120 and ROCm its pool was sized raw in posted logs:
    # 708 bytes a token and layer with the indexer's 132 (GLM-5.2 on RTX PRO 6000, GLM-5 on MI355X).
    return packed if d.gpu.family == "sm90" else arch.mla.latent


def pool_overrun_bytes(arch: Architecture, d: Deployment, dtype: str) -> int:
    """Bytes a token and layer that a pool takes beyond what it was sized by.

    Posted for SGLang 0.5.8 and 0.5.9 on MI355X: tokens = budget / (78 * 708), allocated 78 * 788 each, so the pool
    took 19 GiB of the memory outside the static fraction. Not seen on CUDA.
    """
    if d.engine != "sglang" or d.gpu.platform != "rocm" or arch.indexer is None or arch.mla is None or dtype != "fp8":
        return 0
    return 16 + arch.mla.rope


def counts_context_inside(d: Deployment) -> bool:
    """Whether `gpu_memory_utilization` covers context and communicators too: vLLM up to 0.8 measured all memory."""
    return d.engine == "vllm" and d.version < (0, 9)


def graph_forecast(d: Deployment) -> float:
    """By what vLLM multiplies the graphs it will capture when it takes them out of its budget; 0 if it does not.

    vLLM leaves graphs to the memory outside `gpu_memory_utilization` up to 0.19, and forecasts them from 0.20 on (the
    same release raised the default from 0.9 to 0.92) unless VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0. Posted
    forecasts were 2.5 to 4.2 times what was then used, and pools 1.7 to 2.5 times smaller by them: the plan takes 2.
    """
    forecasts = d.version >= (0, 20) if d.forecast_graphs is None else d.forecast_graphs
    return GRAPH_FORECAST if d.engine == "vllm" and forecasts else 0.0


def keeps_all_index_layers(d: Deployment) -> bool:
    """Whether index keys are kept for layers that share another's selection too.

    Posted: SGLang 0.5.13.post1 did (55 kB a token for GLM-5.2 = 78 * 708); 0.5.23 does not (read in source).
    """
    return d.engine == "sglang" and d.version < (0, 5, 14)


def process_bytes(gpu: Gpu) -> int:
    """CUDA or HIP context and libraries. Posted free memory before load, one GPU: H100 79.18 - 78.48 GiB."""
    return int((0.65 if gpu.platform == "cuda" else 1.0) * GIB)


def communicator_bytes(d: Deployment) -> int:
    """NCCL/RCCL and custom all-reduce buffers of a replica with more than one GPU, for each group of ranks.

    Posted free memory before load at TP8, less the context: RTX PRO 6000 0.24 (custom all-reduce off) and 1.02 GiB,
    MI355X 3.5 GiB; a 182.18 GiB start on a GB200-class card 1.48. The plan takes 1.0 and 3.5.
    """
    if d.world == 1:
        return 0
    groups = 1 + (d.dcp > 1)
    return int(groups * (1.0 if d.gpu.platform == "cuda" else 3.5) * GIB)
