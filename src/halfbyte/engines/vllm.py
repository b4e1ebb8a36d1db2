"""vLLM. Read in 0.33.0, run in 0.26.0 on an H100 (docs/engines.md); posted server logs where named."""

from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType

from halfbyte.engines.engine import FUSED, PAGE_TOKENS, Engine, EngineMetrics, all_or_none
from halfbyte.engines.server import GIB, MIB, Gpu, Layout, Limits, Server
from halfbyte.engines.vllm_faults import FAULTS
from halfbyte.errors import UsageError, said
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Support

GRAPH_FORECAST = 2.0
DRAIN_S = "600"
"""Longer than the door waits for running answers."""
RUN_KV_DTYPES = {"bf16": "bfloat16"}


class Vllm(Engine):
    faults = FAULTS
    name = "vllm"
    title = "vLLM"
    read = "0.33.0"
    # ModelOptQuantConfigBase._extract_modelopt_quant_algo upper-cases the name; NVFP4_AWQ is refused (run, 0.33)
    algorithms = frozenset(
        ("NVFP4", "W4A16_NVFP4", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", "MIXED_PRECISION")
    )
    run_names = MappingProxyType(dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj"))
    packs_mtp = True
    folds_shared = False
    asks_tied_head = True  # run, 0.26.0: Marlin then prepares the embedding as packed weights and stops
    config_indexer_types = False
    weight_only_from = (7, 5)  # get_min_capability
    profiles = True
    sampler_copies = (
        5  # its profile runs top-k/top-p sampling: logits, sorted values, int64 indices (two), probabilities
    )
    moe_chunk = 32768  # VLLM_FUSED_MOE_CHUNK_SIZE
    spreads_all_cache = True
    packed_cache_layouts = True
    checked_states = 0  # MambaSpec: num_speculative_blocks
    cut_gated = (  # Gemma 4's, 704 wide, over 2 ranks; its pull request 48624 means to mend both
        "vLLM 0.26 on a B200 pads gate and up as one and answers wrong without a word (its issue 55649), its CUTLASS "
        "kernels stop (42516)"
    )
    metrics = EngineMetrics("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc")

    def excluded(self, entries: tuple[str, ...], module: str) -> bool:
        """`ModelOptQuantConfigBase.is_layer_excluded`, `apply_vllm_mapper`, `is_layer_skipped`: exact paths (fused
        modules by their parts), plain substrings of any entry, globs."""
        split = _split(entries)
        parent, _, last = module.rpartition(".")
        if last in FUSED:
            if all_or_none([f"{parent}.{shard}" in split.exact for shard in FUSED[last]]) or module in split.exact:
                return True
        elif "experts" in module:
            if any(module in entry for entry in split.expert_entries):
                return True
        elif module in split.exact:
            return True
        return any(entry != module and entry in module for entry in split.every) or any(
            fnmatchcase(module, entry) for entry in split.globs
        )

    def knows_algorithm(self, name: str) -> bool:
        return super().knows_algorithm(name.upper())

    def quantizes_activations(self, algorithm: str, block: QuantizationBlock) -> bool:
        """Null `input_activations` in every group make NVFP4 weight-only."""
        return super().quantizes_activations(algorithm, block) and block.quantizes_activations(if_absent=True)

    def parallelism(self, gpus: int, tp: int | None, pp: int, dp: int, ep: int) -> tuple[int, bool]:
        """`tp` is per DP rank; expert parallelism spans tp x dp."""
        tp = tp if tp is not None else gpus // (pp * dp)
        wanted = tp * pp * dp
        if wanted != gpus:
            ranks = f"tp {tp} x pp {pp} x dp {dp}"
            raise UsageError(
                said("{ranks} needs {wanted} GPUs, {gpus} says {given}", ranks=ranks, wanted=wanted, given=gpus)
            )
        if ep > 1 and ep != tp * dp:
            raise UsageError(
                said(
                    "vLLM's expert parallelism spans tp x dp = {ranks} ranks, {ep} says {given}",
                    ranks=tp * dp,
                    given=ep,
                )
            )
        return tp, False

    def copies(self, server: Server) -> int:
        """DP ranks share the experts, by width or (EP) by number: one copy."""
        return 1

    def cache_ranks(self, server: Server) -> int:
        return server.dp

    def layout(self, server: Server) -> Layout:
        experts, expert_parallel = server.tp * server.dp, server.ep > 1
        # sequence-parallel MoE keeps a whole shared expert on each rank
        shared = 1 if expert_parallel and server.tp > 1 and server.dp > 1 else server.tp
        return Layout(
            attention=server.tp,
            expert_width=1 if expert_parallel else experts,
            expert_count=experts if expert_parallel else 1,
            dense=server.tp,
            shared=shared,
            embedding=server.tp,
            head=server.tp,
        )

    def default_chunk(self, gpu: Gpu) -> int:
        return 16384 if gpu.memory_gib >= 160 else 8192 if _large(gpu) else 2048

    def default_sequences(self, gpu: Gpu) -> int:
        return 1024 if _large(gpu) else 256

    def default_graph_batch(self, server: Server, sequences: int) -> int:
        return min(512, sequences * 2)

    def default_fraction(self, arch: Architecture, server: Server, chunk: int, graph: int) -> float:
        """0.92 (0.33), 0.9 up to 0.19."""
        return 0.92 if server.version >= (0, 20) else 0.9

    def raw_latent(self, gpu: Gpu) -> bool:
        return gpu.family == "sm100"

    def counts_context_inside(self, version: tuple[int, ...]) -> bool:
        """Up to 0.8 `gpu_memory_utilization` measured all memory."""
        return version < (0, 9)

    def graph_forecast(self, server: Server) -> float:
        """Graphs are left to the memory outside `gpu_memory_utilization` up to 0.19, and forecast from 0.20 on (the
        same release raised the default from 0.9 to 0.92) unless VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0. Posted
        forecasts were 2.5 to 4.2 times what was then used, and pools 1.7 to 2.5 times smaller by them: the plan takes
        2."""
        forecasts = server.version >= (0, 20) if server.forecast_graphs is None else server.forecast_graphs
        return GRAPH_FORECAST if forecasts else 0.0

    def graph_bytes(self, server: Server, batch: int) -> tuple[float, str, str, str]:
        """Fitted on seven posted captures of one model at batch 256 (1.21-1.23 GiB, 2.23-2.39 with MTP); its own
        forecast was two to four times that."""
        factor = 2 if server.mtp_tokens else 1
        size = factor * (0.6 * GIB + 2.5 * MIB * batch)
        formula, source = f"{factor} x (0.6 GiB + 2.5 MiB x {batch})", "posted vLLM captures, GLM-5.1 at TP8"
        return size, formula, source, "fewer running sequences"

    def top_k_buffers(self, drafting: bool) -> int:
        """One for the target and one for its drafts."""
        return 2 if drafting else 1

    def whole_index_logits(self, gpu: Gpu) -> bool:
        """Posted pools on SM120 at contexts of 65,536, 202,752 and 250,000: beside the weights those servers took 2.1,
        7.0 and about 8.9 GiB, the scores of a whole chunk of 8,192 tokens (2.0, 6.2, 7.6 GiB), and no room for the
        sparse prefill workspace of the FlashMLA kernels, which SM120 does not have."""
        return gpu.family == "sm120"

    def sparse_workspace_factor(self, gpu: Gpu, context: int) -> int:
        """`get_max_prefill_buffer_size`; posted pools at three lengths say that both parts are live."""
        if self.whole_index_logits(gpu):
            return 0
        return 5 if context <= 262_144 else 2

    def decode_rows(self, server: Server, limits: Limits) -> int:
        return limits.max_sequences

    def held_in_window(self, version: tuple[int, ...], window: int, chunk: int, context: float) -> float:
        """Frees what has left the window, after the chunk at hand (`SlidingWindowSpec.max_memory_usage_bytes`); before
        0.10 every layer kept all."""
        return min(context, window - 1 + chunk) if version >= (0, 10) else context

    def page_tokens(self, arch: Architecture) -> int:
        """Blocks of 16, 64 for the kernels of latent attention."""
        return PAGE_TOKENS if arch.mla is not None else 16

    def copies_kv_b(self, plain: bool) -> bool:
        """BF16 copies of a quantized one only."""
        return not plain

    def vision_ranks(self, dense: int) -> int:
        return dense

    def flags(self, server: Server, limits: Limits) -> list[str]:
        flags = ["--tensor-parallel-size", str(server.tp)]
        if server.pp > 1:
            flags += ["--pipeline-parallel-size", str(server.pp)]
        if server.dp > 1:
            flags += ["--data-parallel-size", str(server.dp)]
        if server.ep > 1:
            flags.append("--enable-expert-parallel")
        if server.dcp > 1:
            flags += ["--decode-context-parallel-size", str(server.dcp)]
        flags += ["--max-model-len", str(server.context), "--max-num-batched-tokens", str(limits.chunk)]
        flags += ["--gpu-memory-utilization", f"{limits.fraction:g}", "--max-num-seqs", str(limits.max_sequences)]
        flags += ["--kv-cache-dtype", RUN_KV_DTYPES.get(limits.kv_dtype, limits.kv_dtype)]
        if limits.graph_batch == 0:
            flags.append("--enforce-eager")
        if server.mtp_tokens:
            flags += ["--speculative-config", f'{{"method":"mtp","num_speculative_tokens":{server.mtp_tokens}}}']
        return flags

    def start(self, model: str) -> list[str]:
        return ["vllm", "serve", model]

    def door_flags(self, name: str) -> list[str]:
        """Without --shutdown-timeout it aborts running requests at SIGTERM; cached tokens are said only when asked."""
        return ["--served-model-name", name, "--enable-prompt-tokens-details", "--shutdown-timeout", DRAIN_S]

    def node_flags(self, nodes: int) -> list[str]:
        """0.33, arg_utils.py: torch's own processes over nodes, without Ray; ranks above 0 run with --headless."""
        leader = ["--master-addr", "$(LWS_LEADER_ADDRESS)", "--master-port", "20000"]
        return ["--nnodes", str(nodes), "--node-rank", "$(LWS_WORKER_INDEX)", *leader]

    def follower_flags(self) -> list[str]:
        return ["--headless"]

    def parser_flags(self, support: Support) -> list[str]:
        """A tool parser is not used unless it is enabled too."""
        return super().parser_flags(support) + (["--enable-auto-tool-choice"] if support.tool_parser else [])


def _large(gpu: Gpu) -> bool:
    """Its own class of large GPUs (`EngineArgs.get_batch_defaults`): 70 GiB or more, but not an A100."""
    return gpu.memory_gib >= 70 and not gpu.name.startswith("a100")


class _Entries:
    """`foo*` split into `foo` and `foo.*`, as vLLM does before matching, then sorted by how they can match."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        self.every: list[str] = []  # a glob cannot be a substring of a module path, so it is harmless among them
        for entry in entries:
            if len(entry) >= 2 and entry[-1] == "*" and entry[-2] != ".":
                self.every += [entry[:-1], entry[:-1] + ".*"]
            else:
                self.every.append(entry)
        self.exact = frozenset(self.every)
        self.expert_entries = [entry for entry in self.every if "experts" in entry]
        self.globs = [entry for entry in self.every if any(c in entry for c in "*?[")]


@lru_cache(16)
def _split(entries: tuple[str, ...]) -> _Entries:
    return _Entries(entries)


VLLM = Vllm()
