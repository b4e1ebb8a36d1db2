"""How a model is put on GPUs: engine, parallelism, limits. Validated against the model before anything is summed.

The two engines count differently. SGLang's `tp` counts all GPUs of a replica and DP attention divides it; vLLM's `tp`
is per DP rank. `Layout` says the same in one language: how many ranks each part of the model is divided by.
"""

import re
from dataclasses import dataclass
from typing import Literal

from halfbyte.errors import UsageError
from halfbyte.models.architecture import Architecture
from halfbyte.plan.hardware import Gpu

Engine = Literal["sglang", "vllm"]
ENGINES: tuple[Engine, ...] = ("sglang", "vllm")
MAX_GPUS = 4096
VERSION = re.compile(r"\bv?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


@dataclass(frozen=True)
class Deployment:
    """One server. None means the engine's own default.

    gpus: all of them, replicas included. mtp_tokens: draft tokens per step, 0 for no speculation. fraction:
    `--mem-fraction-static` or `--gpu-memory-utilization`. graph_batch: largest batch with a captured CUDA graph, 0 for
    eager. forecast_graphs: whether vLLM's budget leaves room for CUDA graphs. draft_gib: weights on a GPU of a draft
    model of one layer that is not part of the checkpoint (Eagle3); None to draft with the checkpoint's MTP layers.
    """

    engine: Engine
    gpu: Gpu
    gpus: int
    tp: int
    pp: int = 1
    dp: int = 1
    ep: int = 1
    dcp: int = 1
    dp_attention: bool = False
    context: int = 0
    concurrency: int | None = None
    chunk: int | None = None
    kv_dtype: str | None = None
    fraction: float | None = None
    mtp_tokens: int = 0
    max_sequences: int | None = None
    graph_batch: int | None = None
    max_total_tokens: int | None = None
    engine_version: str | None = None
    forecast_graphs: bool | None = None
    draft_gib: float | None = None

    @property
    def version(self) -> tuple[int, ...]:
        """Numbers of the engine's version. One that is not given, or is no number (a fork's), counts as the newest."""
        found = VERSION.search(self.engine_version or "")
        numbers = tuple(int(piece) for piece in found.groups() if piece) if found else ()
        return numbers if any(numbers) else (9999,)

    @property
    def world(self) -> int:
        """GPUs of one replica."""
        return self.gpus // self.replicas

    @property
    def replicas(self) -> int:
        """Independent copies of the model. vLLM's DP ranks share the experts, by width or (EP) by number: one copy."""
        return 1 if self.engine == "vllm" or self.dp_attention else self.dp

    @property
    def kv_ranks(self) -> int:
        """Ranks with requests (and so KV) of their own inside one replica."""
        return self.dp if self.engine == "vllm" or self.dp_attention else 1


def draft_layers(arch: Architecture, d: Deployment) -> int:
    """Layers that cache the drafts' KV: the MTP layers, or the one layer of an external draft; 0 without drafts."""
    if not d.mtp_tokens:
        return 0
    return arch.mtp_layers if d.draft_gib is None else 1


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


def layout(d: Deployment) -> Layout:
    """Source: serving.md 3.1 (vLLM 0.33, SGLang 0.5.23)."""
    if d.engine == "vllm":
        experts = d.tp * d.dp
        expert_parallel = d.ep > 1
        # sequence-parallel MoE keeps a whole shared expert on each rank
        shared = 1 if expert_parallel and d.tp > 1 and d.dp > 1 else d.tp
        return Layout(
            attention=d.tp,
            expert_width=1 if expert_parallel else experts,
            expert_count=experts if expert_parallel else 1,
            dense=d.tp,
            shared=shared,
            embedding=d.tp,
            head=d.tp,
        )
    attention = d.tp // d.dp if d.dp_attention else d.tp
    return Layout(attention, d.tp // d.ep, d.ep, d.tp, d.tp, attention, d.tp)


def make_deployment(
    arch: Architecture,
    gpu: Gpu,
    gpus: int,
    engine: str,
    tp: int | None = None,
    ep: int | None = None,
    dp: int | None = None,
    pp: int | None = None,
    dcp: int | None = None,
    **limits: object,
) -> Deployment:
    """Fill in the parallelism that is not given and check all of it. Raises UsageError with what would be possible."""
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine[:40]!r}", hint=f"known: {', '.join(ENGINES)}")
    for name, value in (("gpus", gpus), ("tp", tp), ("ep", ep), ("dp", dp), ("pp", pp), ("dcp", dcp)):
        if value is not None and not 1 <= value <= MAX_GPUS:
            raise UsageError(f"{name} is {value}, wanted 1 to {MAX_GPUS}")
    pp, dp, dcp = pp or 1, dp or 1, dcp or 1
    attention_dp = engine == "sglang" and dp > 1 and (tp is None or tp * pp == gpus)
    if tp is None:
        tp = gpus // pp if attention_dp or dp == 1 else gpus // (pp * dp)
    wanted = tp * pp * (1 if attention_dp else dp)
    if wanted != gpus:
        raise UsageError(f"tp {tp} x pp {pp} x dp {dp} needs {wanted} GPUs, --gpus says {gpus}")
    ep = ep or 1
    world = tp if engine == "sglang" else tp * dp
    if engine == "vllm" and ep > 1 and ep != world:
        raise UsageError(f"vLLM's expert parallelism spans tp x dp = {world} ranks, --ep says {ep}")
    if engine == "sglang" and tp % ep:
        raise UsageError(f"ep {ep} does not divide tp {tp}")
    if attention_dp and tp % dp:
        raise UsageError(f"dp {dp} does not divide tp {tp}")
    if dcp > 1 and tp % dcp:
        raise UsageError(f"dcp {dcp} does not divide tp {tp}")
    found = Deployment(
        engine="vllm" if engine == "vllm" else "sglang",
        gpu=gpu,
        gpus=gpus,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        dcp=dcp,
        dp_attention=attention_dp,
        **limits,  # type: ignore[arg-type]
    )
    _check_shapes(arch, found)
    return _checked_limits(arch, found)


def _check_shapes(arch: Architecture, d: Deployment) -> None:
    ranks = layout(d)
    if arch.heads % ranks.attention:
        possible = [n for n in range(1, arch.heads + 1) if arch.heads % n == 0]
        raise UsageError(
            f"{arch.heads} attention heads do not divide over {ranks.attention} ranks",
            hint=f"possible: {', '.join(map(str, possible))}",
        )
    if arch.experts % ranks.expert_count:
        raise UsageError(f"{arch.experts} experts do not divide over {ranks.expert_count} ranks (ep)")
    if arch.expert_width % ranks.expert_width:
        raise UsageError(f"experts of width {arch.expert_width} do not divide over {ranks.expert_width} ranks")
    if d.pp > arch.layers:
        raise UsageError(f"pp {d.pp} is more than the {arch.layers} layers")
    if d.mtp_tokens and not arch.mtp_layers and d.draft_gib is None:
        raise UsageError("the model has no MTP layer to draft with", hint="leave out --mtp, or give --draft-gib")
    if d.draft_gib is not None and not d.mtp_tokens:
        raise UsageError("--draft-gib without draft tokens", hint="add --mtp N")


def _checked_limits(arch: Architecture, d: Deployment) -> Deployment:
    context = d.context or arch.max_context
    if not 1 <= context <= arch.max_context:
        raise UsageError(f"a context of {context} tokens; the model has {arch.max_context}")
    if d.fraction is not None and not 0.05 <= d.fraction < 1:
        raise UsageError(f"a memory fraction of {d.fraction:g}; wanted more than 0.05 and less than 1")
    for name, value, most in (
        ("chunk", d.chunk, 1 << 24),
        ("concurrency", d.concurrency, 1 << 20),
        ("max sequences", d.max_sequences, 1 << 20),
        ("max total tokens", d.max_total_tokens, 1 << 40),
    ):
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"{name} is {value}, wanted 1 to {most}")
    if d.graph_batch is not None and not 0 <= d.graph_batch <= 1 << 16:
        raise UsageError(f"a CUDA graph batch of {d.graph_batch}; wanted 0 (eager) to {1 << 16}")
    if d.draft_gib is not None and not 0 <= d.draft_gib <= d.gpu.memory_gib:
        raise UsageError(f"a draft model of {d.draft_gib:g} GiB per GPU; wanted 0 to {d.gpu.memory_gib:g}")
    if not 0 <= d.mtp_tokens <= 32:
        raise UsageError(f"{d.mtp_tokens} draft tokens; wanted 0 to 32")
    return Deployment(**{**d.__dict__, "context": context})
