"""The command-line flags with which an engine runs a plan. Read in vLLM 0.33 and SGLang 0.5.23 (serving notes 4)."""

from halfbyte.plan.memory import MemoryPlan
from halfbyte.plan.target import Model

PARSERS = {
    ("glm_moe_dsa", "sglang"): ["--reasoning-parser", "glm45", "--tool-call-parser", "glm47"],
    ("glm_moe_dsa", "vllm"): [
        "--reasoning-parser",
        "glm45",
        "--tool-call-parser",
        "glm47",
        "--enable-auto-tool-choice",
    ],
}


def engine_flags(model: Model, plan: MemoryPlan) -> list[str]:
    """Flags in the order of the notes' table; the model's path and host are the caller's."""
    d = plan.deployment
    flags = _sglang(model, plan) if d.engine == "sglang" else _vllm(model, plan)
    return flags + PARSERS.get((model.arch.model_type, d.engine), [])


def _sglang(model: Model, plan: MemoryPlan) -> list[str]:
    d, limits = plan.deployment, plan.limits
    flags = ["--tp-size", str(d.tp)]
    if d.pp > 1:
        flags += ["--pp-size", str(d.pp)]
    if d.dp > 1:
        flags += ["--dp-size", str(d.dp), *(["--enable-dp-attention"] if d.dp_attention else [])]
    if d.ep > 1:
        flags += ["--ep-size", str(d.ep)]
    if d.dcp > 1:
        flags += ["--dcp-size", str(d.dcp)]
    flags += ["--context-length", str(d.context)]
    # the engine divides the chunk by dp itself under DP attention
    flags += ["--chunked-prefill-size", str(limits.chunk * (d.dp if d.dp_attention else 1))]
    flags += ["--mem-fraction-static", f"{limits.fraction:g}"]
    flags += ["--kv-cache-dtype", "fp8_e4m3" if limits.kv_dtype == "fp8" else "bfloat16"]
    flags += ["--cuda-graph-max-bs", str(limits.graph_batch)]
    if d.concurrency or d.max_sequences:
        flags += ["--max-running-requests", str(limits.max_sequences)]
    if d.max_total_tokens:
        flags += ["--max-total-tokens", str(d.max_total_tokens)]
    if d.mtp_tokens:
        flags += ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", str(d.mtp_tokens)]
        flags += ["--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", str(d.mtp_tokens + 1)]
    return flags


def _vllm(model: Model, plan: MemoryPlan) -> list[str]:
    d, limits = plan.deployment, plan.limits
    flags = ["--tensor-parallel-size", str(d.tp)]
    if d.pp > 1:
        flags += ["--pipeline-parallel-size", str(d.pp)]
    if d.dp > 1:
        flags += ["--data-parallel-size", str(d.dp)]
    if d.ep > 1:
        flags.append("--enable-expert-parallel")
    if d.dcp > 1:
        flags += ["--decode-context-parallel-size", str(d.dcp)]
    flags += ["--max-model-len", str(d.context), "--max-num-batched-tokens", str(limits.chunk)]
    flags += ["--gpu-memory-utilization", f"{limits.fraction:g}", "--max-num-seqs", str(limits.max_sequences)]
    flags += ["--kv-cache-dtype", "bfloat16" if limits.kv_dtype == "bf16" else limits.kv_dtype]
    if limits.graph_batch == 0:
        flags.append("--enforce-eager")
    if d.mtp_tokens:
        flags += ["--speculative-config", f'{{"method":"mtp","num_speculative_tokens":{d.mtp_tokens}}}']
    return flags
