"""What Halfbyte knows of an engine: one class, one file an engine. Facts and small formulas; the sums stay in `plan`.

Where a fact was read or run stands beside it, and in docs/engines.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from halfbyte.engines.faults import Fault
from halfbyte.engines.server import Gpu, Layout, Limits, Server
from halfbyte.errors import UsageError
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Support
from halfbyte.models.roles import Role, TensorRole

EngineName = Literal["vllm", "sglang"]

KV_DTYPES = ("auto", "bf16", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla")
PAGE_TOKENS = 64
INDEX_SCALE_BYTES = 4

FUSED: dict[str, tuple[str, ...]] = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "fused_qkv_a_proj_with_mqa": ("q_a_proj", "kv_a_proj_with_mqa"),
}
"""Runtime modules that hold several linears of the checkpoint."""

NEVER_ASKED = frozenset((Role.EMBEDDING, Role.NORM, Role.MTP, Role.HYPER_CONNECTION))
"""Roles that both engines build without a quantization config, listed or not."""


@dataclass(frozen=True)
class EngineMetrics:
    """Names in Prometheus. waiting, running: requests. cache_used: share of the cache, 0 to 1. model: the label with
    the served model's name."""

    waiting: str
    running: str
    cache_used: str
    model: str = "model_name"


class SplitFusedError(ValueError):
    """An engine's "Detected some but not all shards of ... are quantized"."""


class Engine(ABC):
    """One engine that serves NVFP4 checkpoints.

    faults: what it refuses or computes wrong. name: as users type it. title: as its makers write it. read: the newest
    version whose source was read.
    algorithms: names of `quant_algo` that it takes. run_names: the linears that it calls otherwise.
    packs_mtp: whether an MTP layer may be packed. folds_shared: whether a kept shared expert is fused into packed
    experts unless an exclusion names it. asks_tied_head: whether it asks about the head where that is the embedding.
    config_indexer_types: whether `indexer_types` decides which layers carry an indexer. weight_only_from: least compute
    capability of its weight-only NVFP4 kernels.
    profiles: whether the pool is what a measured forward pass leaves of the fraction (else the fraction is for weights
    and cache alone). sampler_copies: float32 [rows, vocabulary] arrays alive at once. moe_chunk: tokens that Triton and
    Marlin expert kernels take at once. spreads_all_cache: whether decode context parallelism divides indexer keys and
    heads too. packed_cache_layouts: whether it takes fp8_ds_mla and nvfp4_ds_mla. checked_states: states of linear
    attention and Mamba that it keeps of a sequence while it checks drafts, beside the last and one for each draft.
    cut_gated: what it was seen to do with experts with a gate whose width on a rank is off the step of its FP4 kernels
    (`alignment.EXPERT_WIDTH_STEP`).
    """

    faults: ClassVar[tuple[Fault, ...]]
    name: ClassVar[EngineName]
    title: ClassVar[str]
    read: ClassVar[str]
    algorithms: ClassVar[frozenset[str]]
    run_names: ClassVar[Mapping[str, str]]
    packs_mtp: ClassVar[bool]
    folds_shared: ClassVar[bool]
    asks_tied_head: ClassVar[bool]
    config_indexer_types: ClassVar[bool]
    weight_only_from: ClassVar[tuple[int, int]]
    profiles: ClassVar[bool]
    sampler_copies: ClassVar[int]
    moe_chunk: ClassVar[int]
    spreads_all_cache: ClassVar[bool]
    packed_cache_layouts: ClassVar[bool]
    checked_states: ClassVar[int]
    cut_gated: ClassVar[str]
    metrics: ClassVar[EngineMetrics]

    # Reading a checkpoint

    @abstractmethod
    def excluded(self, entries: tuple[str, ...], module: str) -> bool:
        """Whether this engine would leave the runtime module `module` unquantized.

        module: a runtime path: fused linears by their fused name, all experts of a layer as `...mlp.experts`.
        Raises SplitFusedError where the engine raises.
        """

    def knows_algorithm(self, name: str) -> bool:
        """Whether it takes this `quant_algo`, in its own spelling."""
        return name in self.algorithms

    def quantizes_activations(self, algorithm: str, block: QuantizationBlock) -> bool:
        """Whether it quantizes activations with the checkpoint's `input_scale`. block: of config.json, or empty."""
        return algorithm.upper() in ("NVFP4", "NVFP4_AWQ")

    def runtime_module(self, role: TensorRole, gated: bool = True, experts_in: str = "") -> str:
        """The module that it asks the exclusion list about for one linear of the checkpoint.

        gated: whether the model's MLPs have a gate_proj, with which up_proj is fused. experts_in: `Family.experts_in`.
        """
        if role.role is Role.ROUTED_EXPERT:
            above = role.module.partition(".experts.")[0]
            return f"{above}.{experts_in}.experts" if experts_in else f"{above}.experts"
        parent, _, last = role.module.rpartition(".")
        if last in self.run_names:
            return f"{parent}.{self.run_names[last]}"
        for fused in ("gate_up_proj", "qkv_proj") if gated else ("qkv_proj",):
            if last in FUSED[fused]:
                return f"{parent}.{fused}"
        return role.module

    # Running one

    @abstractmethod
    def parallelism(self, gpus: int, tp: int | None, pp: int, dp: int, ep: int) -> tuple[int, bool]:
        """Tensor-parallel ranks and whether attention is data parallel, from what was asked. Raises UsageError."""

    @abstractmethod
    def copies(self, server: Server) -> int:
        """Independent copies of the model: replicas."""

    @abstractmethod
    def cache_ranks(self, server: Server) -> int:
        """Ranks with requests (and so cache) of their own inside one replica."""

    @abstractmethod
    def layout(self, server: Server) -> Layout:
        """How many ranks share each part of the model."""

    @abstractmethod
    def default_chunk(self, gpu: Gpu) -> int:
        """Tokens of one forward pass where none are asked for."""

    @abstractmethod
    def default_sequences(self, gpu: Gpu) -> int: ...

    @abstractmethod
    def default_graph_batch(self, server: Server, sequences: int) -> int: ...

    @abstractmethod
    def default_fraction(self, arch: Architecture, server: Server, chunk: int, graph: int) -> float: ...

    @abstractmethod
    def raw_latent(self, gpu: Gpu) -> bool:
        """Whether an fp8 cache of sparse latent attention is one byte a number, instead of FlashMLA's packed layout."""

    def pool_overrun_bytes(self, arch: Architecture, gpu: Gpu, kv_dtype: str) -> int:
        """Bytes a token and layer that a pool takes beyond what it was sized by."""
        return 0

    def keeps_all_index_layers(self, version: tuple[int, ...]) -> bool:
        """Whether index keys are kept for layers that share another's selection too."""
        return False

    def counts_context_inside(self, version: tuple[int, ...]) -> bool:
        """Whether the memory fraction covers context and communicators too."""
        return False

    def graph_forecast(self, server: Server) -> float:
        """By what it multiplies the graphs it will capture when it takes them out of its budget; 0 if it does not."""
        return 0.0

    @abstractmethod
    def graph_bytes(self, server: Server, batch: int) -> tuple[float, str, str, str]:
        """CUDA graphs of a largest batch and their private pool: bytes, formula, source, and what would shrink them."""

    @abstractmethod
    def decode_rows(self, server: Server, limits: Limits) -> int:
        """Positions of one decode step that are sampled."""

    @abstractmethod
    def held_in_window(self, version: tuple[int, ...], window: int, chunk: int, context: float) -> float:
        """Tokens that a sliding layer's cache holds of a sequence of `context` tokens."""

    @abstractmethod
    def page_tokens(self, arch: Architecture) -> int: ...

    @abstractmethod
    def copies_kv_b(self, plain: bool) -> bool:
        """Whether it keeps BF16 copies of kv_b_proj for absorbed attention. plain: kv_b_proj is stored in 16 bits."""

    def takes_cut_tiles(self, gpu: Gpu) -> bool:
        """Whether experts in FP8 blocks may be cut inside a tile of 128 x 128."""
        return True

    @abstractmethod
    def vision_ranks(self, dense: int) -> int:
        """Ranks that share a vision tower, of `dense` that share a dense MLP."""

    @abstractmethod
    def flags(self, server: Server, limits: Limits) -> list[str]:
        """The command-line flags of a server, model, host and parsers left to the caller."""

    @abstractmethod
    def start(self, model: str) -> list[str]:
        """The command that starts a server of a model, without any other flag."""

    @abstractmethod
    def door_flags(self, name: str) -> list[str]:
        """What a door in front wants of the server: the model's name, cached tokens in usage, metrics, time to end."""

    def listen_flags(self, port: int) -> list[str]:
        """Where it listens: on this machine only, behind the door."""
        return ["--host", "127.0.0.1", "--port", str(port)]

    @abstractmethod
    def node_flags(self, nodes: int) -> list[str]:
        """What a server over several nodes is told, in a LeaderWorkerSet's variables: where its leader is, and which of
        the nodes it is."""

    def follower_flags(self) -> list[str]:
        """What the nodes beside the leader are told too."""
        return []

    def environment(self) -> dict[str, str]:
        """Variables that the server is started with."""
        return {}

    def parser_flags(self, support: Support) -> list[str]:
        """The flags that name a family's parsers."""
        flags = []
        if support.reasoning_parser is not None:
            flags += ["--reasoning-parser", support.reasoning_parser]
        if support.tool_parser is not None:
            flags += ["--tool-call-parser", support.tool_parser]
        return flags

    def attention_workspace_bytes(self, gpu: Gpu) -> float:
        """Of TRT-LLM's attention kernels."""
        return 0.0

    def top_k_buffers(self, drafting: bool) -> int:
        """Copies of the buffer of selected tokens."""
        return 1

    def whole_index_logits(self, gpu: Gpu) -> bool:
        """Whether an indexer's scores of a whole chunk are live at once, instead of pieces of bounded size."""
        return False

    def sparse_workspace_factor(self, gpu: Gpu, context: int) -> int:
        """Times the context that a workspace for sparse prefill takes; 0 for none."""
        return 0

    def swizzles_scales(self, gpu: Gpu) -> bool:
        """Whether a second form of the block scales is made while loading."""
        return False

    def moe_chunk_tokens(self, gpu: Gpu) -> int:
        """Tokens that an expert kernel takes at once; TRT-LLM kernels (SM100) and AITER (ROCm) do not split."""
        return 1 << 30 if gpu.family in ("sm100", "rocm") else self.moe_chunk

    def limits(self, arch: Architecture, server: Server) -> Limits:
        """The engine's defaults, with everything that is given put over them."""
        chunk = server.chunk if server.chunk is not None else self.default_chunk(server.gpu)
        if server.dp_attention:
            chunk = max(chunk // server.dp, 1)
        sequences = server.max_sequences or server.concurrency
        if sequences is None:
            sequences = self.default_sequences(server.gpu)
        graph = server.graph_batch
        if graph is None:
            graph = self.default_graph_batch(server, sequences)
        fraction = server.fraction
        if fraction is None:
            fraction = self.default_fraction(arch, server, chunk, graph)
        return Limits(chunk, sequences, graph, fraction, self.kv_dtype(arch, server))

    def kv_dtype(self, arch: Architecture, server: Server) -> str:
        """`fp8`, `bf16`, `fp8_ds_mla` or `nvfp4_ds_mla`: what the server's cache holds."""
        asked = (server.kv_dtype or "auto").lower()
        if asked not in KV_DTYPES:
            raise UsageError(f"unknown KV cache dtype {asked[:40]!r}", hint=f"known: {', '.join(KV_DTYPES)}")
        if asked.endswith("_ds_mla"):
            if not self.packed_cache_layouts or arch.mla is None:
                raise UsageError(f"{asked} is a cache layout of vLLM for latent attention", hint="use fp8 or bf16")
            return asked
        if asked != "auto":
            return "fp8" if asked.startswith("fp8") else "bf16"
        return "fp8" if arch.indexer is not None and server.gpu.family == "sm100" else "bf16"

    def latent_bytes(self, arch: Architecture, gpu: Gpu, kv_dtype: str) -> int:
        """Bytes of one token's latent in one layer.

        BF16 2 * (kv_rank + rope); raw fp8 one byte a number; packed fp8 = kv_rank + 4 float32 scales + BF16 rotary part
        (FlashMLA's layout, sparse attention only); nvfp4_ds_mla 352 for a latent of 512 + 64.
        """
        assert arch.mla is not None
        if kv_dtype == "bf16":
            return 2 * arch.mla.latent
        packed = arch.mla.kv_rank + 16 + 2 * arch.mla.rope
        if kv_dtype == "nvfp4_ds_mla":
            return 352 * arch.mla.latent // 576
        if kv_dtype == "fp8_ds_mla":
            return packed
        return arch.mla.latent if arch.indexer is None or self.raw_latent(gpu) else packed


def all_or_none(answers: Sequence[bool]) -> bool:
    """Whether all parts of a fused module are excluded. Raises SplitFusedError if only some are."""
    if any(answers) and not all(answers):
        raise SplitFusedError("some but not all shards of a fused module are excluded")
    return all(answers)
