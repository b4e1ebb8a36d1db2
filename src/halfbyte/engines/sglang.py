"""SGLang. Read in 0.5.23, run in 0.5.15.post1 on an H100 (docs/engines.md); posted server logs where named."""

import re
from functools import lru_cache
from types import MappingProxyType

from halfbyte.engines.engine import FUSED, PAGE_TOKENS, Engine, EngineMetrics, all_or_none
from halfbyte.engines.server import GIB, MIB, Gpu, Layout, Limits, Server
from halfbyte.engines.sglang_faults import FAULTS
from halfbyte.engines.sources import BUFFERS
from halfbyte.errors import UsageError, said
from halfbyte.models.architecture import Architecture

LATENT_PARTS = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
SLIDING_SHARE = 0.8
"""`--swa-full-tokens-ratio`: tokens in the pool of the sliding layers for each token in the pool of the others."""


class Sglang(Engine):
    faults = FAULTS
    name = "sglang"
    title = "SGLang"
    read = "0.5.23"
    algorithms = frozenset(("NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "FP8", "MIXED_PRECISION"))  # to the letter
    run_names = MappingProxyType(dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj_with_mqa"))
    packs_mtp = False  # DeepseekModelNextN sets quant_config=None for modelopt_fp4
    folds_shared = True  # ModelOptFp4Config.can_fuse_shared_expert: vetoed by an entry that contains `shared_expert`
    asks_tied_head = False  # not known
    config_indexer_types = True
    weight_only_from = (8, 0)
    profiles = False
    sampler_copies = 2  # logits and softmax
    moe_chunk = 65536  # fused_moe
    spreads_all_cache = False  # decode context parallelism divides the latent only
    packed_cache_layouts = False
    cut_gated = "SGLang 0.5.15 stops at an assertion (its issue 30887)"  # Gemma 4's, over 2 ranks
    checked_states = 1  # intermediate_ssm_state_cache: speculative_num_draft_tokens, one more than its steps
    metrics = EngineMetrics("sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage")

    def excluded(self, entries: tuple[str, ...], module: str) -> bool:
        """`ModelOptQuantConfig.is_layer_excluded`, `_get_quant_method`, `quantization/utils.is_layer_skipped`: dotted
        paths for linears, globs on the whole path or one piece of it for all."""
        parent, _, last = module.rpartition(".")
        if last != "experts":  # linears are first asked by path; the fused experts only by pattern
            if last in FUSED:
                shards = [f"{parent}.{shard}" for shard in FUSED[last]]
                if all_or_none([any(_path_match(entry, shard) for entry in entries) for shard in shards]):
                    return True
            elif any(_path_match(entry, module) for entry in entries):
                return True
        pieces = module.split(".")
        for entry, pattern in zip(entries, _patterns(entries), strict=True):
            if pattern.fullmatch(module) or any(pattern.fullmatch(piece) for piece in pieces):
                return True
            tail = entry.rpartition(".")[2]
            if tail in LATENT_PARTS and tail in last:
                return True
        return False

    def parallelism(self, gpus: int, tp: int | None, pp: int, dp: int, ep: int) -> tuple[int, bool]:
        """`tp` counts all GPUs of a replica, and DP attention divides it; where tp x dp are all GPUs, dp replicates."""
        attention_dp = dp > 1 and (tp is None or tp * pp == gpus)
        if tp is None:
            tp = gpus // pp
        wanted = tp * pp * (1 if attention_dp else dp)
        if wanted != gpus:
            ranks = f"tp {tp} x pp {pp} x dp {dp}"
            raise UsageError(
                said("{ranks} needs {wanted} GPUs, {gpus} says {given}", ranks=ranks, wanted=wanted, given=gpus)
            )
        if tp % ep:
            raise UsageError(f"ep {ep} does not divide tp {tp}")
        if attention_dp and tp % dp:
            raise UsageError(f"dp {dp} does not divide tp {tp}")
        return tp, attention_dp

    def copies(self, server: Server) -> int:
        return 1 if server.dp_attention else server.dp

    def cache_ranks(self, server: Server) -> int:
        return server.dp if server.dp_attention else 1

    def layout(self, server: Server) -> Layout:
        attention = server.tp // server.dp if server.dp_attention else server.tp
        return Layout(
            attention=attention,
            expert_width=server.tp // server.ep,
            expert_count=server.ep,
            dense=server.tp,
            shared=server.tp,
            embedding=attention,
            head=server.tp,
        )

    def default_chunk(self, gpu: Gpu) -> int:
        gib = gpu.memory_gib
        return 16384 if gib > 160 else 8192 if gib > 60 else 4096 if gib > 35 else 2048

    def default_sequences(self, gpu: Gpu) -> int:
        return 2048

    def default_graph_batch(self, server: Server, sequences: int) -> int:
        return min(512 if server.tp >= 4 else 256, sequences)

    def default_fraction(self, arch: Architecture, server: Server, chunk: int, graph: int) -> float:
        """`handle_gpu_memory_settings` (arg_groups/memory_hook.py), in MiB."""
        total = server.gpu.memory_gib * 1024
        reserved = 512 + 1.5 * chunk + 1024 * server.tp * server.pp / 8 + 2 * graph
        if arch.mla is not None:
            reserved += 1536
        if server.dp_attention:
            reserved += (3 + (1.5 if graph > 300 else 0)) * graph * server.dp
        if server.gpu.memory_gib > 60:
            reserved = max(reserved, 10240)
        return float(f"{max((total - reserved) / total, 0.05):.3f}")

    def raw_latent(self, gpu: Gpu) -> bool:
        """On Hopper it runs FlashMLA for an fp8 cache. On SM120 and ROCm its pool was sized raw in posted logs: 708
        bytes a token and layer with the indexer's 132 (GLM-5.2 on RTX PRO 6000, GLM-5 on MI355X)."""
        return gpu.family != "sm90"

    def pool_overrun_bytes(self, arch: Architecture, gpu: Gpu, kv_dtype: str) -> int:
        """Posted for 0.5.8 and 0.5.9 on MI355X: tokens = budget / (78 * 708), allocated 78 * 788 each, so the pool took
        19 GiB of the memory outside the static fraction. Not seen on CUDA."""
        if gpu.platform != "rocm" or arch.indexer is None or arch.mla is None or kv_dtype != "fp8":
            return 0
        return 16 + arch.mla.rope

    def keeps_all_index_layers(self, version: tuple[int, ...]) -> bool:
        """Posted: 0.5.13.post1 did (55 kB a token for GLM-5.2 = 78 * 708); 0.5.23 does not (read in source)."""
        return version < (0, 5, 14)

    def graph_bytes(self, server: Server, batch: int) -> tuple[float, str, str, str]:
        """1.5 GiB + 2 MiB x batch x draft tokens, the engine's own reservation."""
        positions = batch * (server.mtp_tokens + 1)
        size, formula = 1.5 * GIB + 2 * MIB * positions, f"1.5 GiB + 2 MiB x {positions} positions"
        return size, formula, BUFFERS, "a smaller --cuda-graph-max-bs"

    def attention_workspace_bytes(self, gpu: Gpu) -> float:
        return 0.5 * GIB if gpu.family == "sm100" else 0.0

    def swizzles_scales(self, gpu: Gpu) -> bool:
        """TRT-LLM kernels (SM100) reuse the scales in place; the others allocate `*_blockscale_swizzled`."""
        return gpu.family != "sm100"

    def decode_rows(self, server: Server, limits: Limits) -> int:
        return min(limits.max_sequences, limits.graph_batch) * (server.mtp_tokens + 1)

    def held_in_window(self, version: tuple[int, ...], window: int, chunk: int, context: float) -> float:
        """Sizes a second pool by a fixed ratio."""
        return SLIDING_SHARE * context

    def page_tokens(self, arch: Architecture) -> int:
        """Sparse attention forces pages of 64 tokens."""
        return PAGE_TOKENS if arch.mla is not None and arch.indexer is not None else 1

    def copies_kv_b(self, plain: bool) -> bool:
        """Contiguous BF16 w_kc and w_vc beside kv_b_proj, whatever its format."""
        return True

    def takes_cut_tiles(self, gpu: Gpu) -> bool:
        """`Fp8MoEMethod.create_weights` stops; AITER pads."""
        return gpu.platform == "rocm"

    def start(self, model: str) -> list[str]:
        return ["python3", "-m", "sglang.launch_server", "--model", model]

    def door_flags(self, name: str) -> list[str]:
        """It waits at SIGTERM for all requests by itself; usage always says what was cached where reports are on."""
        return ["--served-model-name", name, "--enable-metrics", "--enable-cache-report"]

    def node_flags(self, nodes: int) -> list[str]:
        """0.5.23, server_args.py: `dist_init_addr` is of the node with rank 0, which alone listens."""
        leader = "$(LWS_LEADER_ADDRESS):20000"
        return ["--nnodes", str(nodes), "--node-rank", "$(LWS_WORKER_INDEX)", "--dist-init-addr", leader]

    def environment(self) -> dict[str, str]:
        """Without it `/health` generates a token each time that it is asked."""
        return {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"}

    def vision_ranks(self, dense: int) -> int:
        return 1

    def flags(self, server: Server, limits: Limits) -> list[str]:
        flags = ["--tp-size", str(server.tp)]
        if server.pp > 1:
            flags += ["--pp-size", str(server.pp)]
        if server.dp > 1:
            flags += ["--dp-size", str(server.dp), *(["--enable-dp-attention"] if server.dp_attention else [])]
        if server.ep > 1:
            flags += ["--ep-size", str(server.ep)]
        if server.dcp > 1:
            flags += ["--dcp-size", str(server.dcp)]
        flags += ["--context-length", str(server.context)]
        # the engine divides the chunk by dp itself under DP attention
        flags += ["--chunked-prefill-size", str(limits.chunk * (server.dp if server.dp_attention else 1))]
        flags += ["--mem-fraction-static", f"{limits.fraction:g}"]
        flags += ["--kv-cache-dtype", "fp8_e4m3" if limits.kv_dtype == "fp8" else "bfloat16"]
        flags += _graph_flags(server.version, limits.graph_batch)
        if server.concurrency or server.max_sequences:
            flags += ["--max-running-requests", str(limits.max_sequences)]
        if server.max_total_tokens:
            flags += ["--max-total-tokens", str(server.max_total_tokens)]
        if server.mtp_tokens:
            flags += ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", str(server.mtp_tokens)]
            flags += ["--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", str(server.mtp_tokens + 1)]
        return flags


def _graph_flags(version: tuple[int, ...], batch: int) -> list[str]:
    """0.5.15 calls the largest captured batch by its new name and knows the old one; 0.5.23 only the new (read)."""
    if batch == 0:
        return ["--disable-cuda-graph"]
    return ["--cuda-graph-max-bs-decode" if version >= (0, 5, 15) else "--cuda-graph-max-bs", str(batch)]


def _path_match(entry: str, path: str) -> bool:
    return f".{entry.rstrip('.')}." in f".{path}."


@lru_cache(16)
def _patterns(entries: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(re.escape(entry).replace(r"\*", ".*")) for entry in entries)


SGLANG = Sglang()
