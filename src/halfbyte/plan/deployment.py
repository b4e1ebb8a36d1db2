"""How a model is put on GPUs: engine, parallelism, limits. Validated against the model before anything is summed.

The engines count ranks differently; `Layout` says the same in one language: how many ranks each part is divided by.
"""

import re
from dataclasses import dataclass

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.catalogue import engine as find_engine
from halfbyte.engines.engine import Engine, EngineName
from halfbyte.engines.server import Layout, Limits
from halfbyte.errors import UsageError, said
from halfbyte.models.architecture import Architecture
from halfbyte.plan.hardware import Gpu

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

    engine: EngineName
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
    def facts(self) -> Engine:
        """What is known of the engine."""
        return ENGINES[self.engine]

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
        """Independent copies of the model."""
        return self.facts.copies(self)

    @property
    def kv_ranks(self) -> int:
        """Ranks with requests (and so KV) of their own inside one replica."""
        return self.facts.cache_ranks(self)

    @property
    def layout(self) -> Layout:
        """How many ranks share each part of the model."""
        return self.facts.layout(self)

    def limits(self, arch: Architecture) -> Limits:
        """What the server settles on: the engine's defaults, with what is given put over them."""
        return self.facts.limits(arch, self)


def draft_layers(arch: Architecture, d: Deployment) -> int:
    """Layers that cache the drafts' KV: the MTP layers, or the one layer of an external draft; 0 without drafts."""
    if not d.mtp_tokens:
        return 0
    return arch.mtp_layers if d.draft_gib is None else 1


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
    chosen = find_engine(engine)
    for name, value in (("gpus", gpus), ("tp", tp), ("ep", ep), ("dp", dp), ("pp", pp), ("dcp", dcp)):
        if value is not None and not 1 <= value <= MAX_GPUS:
            raise UsageError(f"{name} is {value}, wanted 1 to {MAX_GPUS}")
    pp, dp, dcp = pp or 1, dp or 1, dcp or 1
    ep = ep or 1
    tp, attention_dp = chosen.parallelism(gpus, tp, pp, dp, ep)
    if dcp > 1 and tp % dcp:
        raise UsageError(f"dcp {dcp} does not divide tp {tp}")
    found = Deployment(
        engine=chosen.name,
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
    ranks = d.layout
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
        raise UsageError("the model has no MTP layer to draft with", hint=said("leave out {mtp}, or give {draft_gib}"))
    if d.draft_gib is not None and not d.mtp_tokens:
        raise UsageError(said("{draft_gib} without draft tokens"), hint=said("add {mtp} N"))


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
