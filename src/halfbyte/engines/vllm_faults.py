"""vLLM's faults with NVFP4 checkpoints. Run: 0.26.0 on one H100 (docs/engines.md 12), but where it says read."""

from halfbyte.engines.faults import HOPPER, Fault
from halfbyte.formats.modelopt import MIXED
from halfbyte.models.family import Known

RUN = (0, 26)
WAS_RUN = Known("run", "vLLM 0.26.0 on one H100")

FAULTS = (
    Fault(
        name="indexer-heads",
        what="DeepGEMM's indexer kernels want 16, 32 or 64 heads",
        helps="transformers or llama.cpp",
        shows=lambda loaded, file: loaded.arch.indexer is not None and loaded.arch.indexer.heads not in (16, 32, 64),
        kernels=frozenset(("sm90", "sm100")),
        seen=RUN,
        known=WAS_RUN,
        fatal=False,
    ),
    Fault(
        name="fp16-shared-expert",
        what="in float16 the shared expert's output is divided by routed_scaling_factor, 16-bit weights too",
        helps="--dtype bfloat16",
        flag="--dtype bfloat16",
        shows=lambda loaded, file: (
            file in ("glm4_moe", "nemotron_h") and loaded.routed_scale != 1 and loaded.dtype == "float16"
        ),
        seen=RUN,
        known=Known("run", f"{WAS_RUN.where}: glm4_moe; on one H200: nemotron_h"),
    ),
    Fault(
        name="fp8-attention",
        what="DeepSeek-V4's attention is multiplied by wo_a in FP8 alone, and stops at a wo_a in 16 bits",
        helps="quantize --keep-format, from the published FP8,",
        shows=lambda loaded, file: (
            file == "deepseek_v4" and loaded.packed_experts and loaded.algorithm not in (None, MIXED)
        ),
        seen=(0, 33),
        known=Known("read", "vLLM at 0101ca2, models/deepseek_v4/attention.py: wo_a.weight_scale_inv"),
    ),
    Fault(
        name="stacked-experts",
        what="gpt_oss.py leaves the scales of stacked experts out (their names are not mapped) and knows no biases "
        "beside NVFP4 experts: loading stops, or every token is the same",
        helps="SGLang",
        shows=lambda loaded, file: loaded.packed_experts and loaded.family.support("vllm").stacks is False,
        seen=RUN,
        known=Known("read", "vLLM at a6b6cfa, gpt_oss.py, _load_weights_other; its issue 46641 and pull request 46645"),
    ),
    Fault(
        name="scores-twice",
        what="Marlin multiplies an expert's input by the router's score, which was done before it: wrong answers, and "
        "nothing in the log",
        helps="llama.cpp",
        shows=lambda loaded, file: loaded.packed_experts and loaded.family.scores_first,
        kernels=HOPPER,
        seen=RUN,
        known=Known(
            "run", "vLLM 0.26.0 on one H200: llama4, top-1 74 %, and 100 % with one line of marlin_moe.py changed"
        ),
    ),
    Fault(
        name="scores-twice-cutlass",
        what="its CUTLASS kernels multiply by the router's score once more: wrong answers, and nothing in the log",
        helps="another --moe-backend",
        shows=lambda loaded, file: loaded.packed_experts and loaded.family.scores_first,
        kernels=frozenset(("sm100", "sm120")),
        seen=RUN,
        known=Known("read", "vLLM's pull request 43694, open"),
        fatal=False,
    ),
    Fault(
        name="draft-experts",
        what="its draft reads the experts of DeepSeek-V4's MTP layers as NVFP4, which they are not: hardly a draft is "
        "accepted, answers stay as they are",
        helps="no speculative decoding",
        shows=lambda loaded, file: (
            (file, loaded.algorithm, loaded.packed_drafts) == ("deepseek_v4", MIXED, False)
            and loaded.arch.mtp_layers > 0
        ),
        seen=(0, 33),
        known=Known("read", "vLLM at 234b8eb, models/deepseek_v4/quant_config.py; its pull request 49133"),
        fatal=False,
    ),
    Fault(
        name="ungated-experts",
        what="FlashInfer's TRT-LLM kernel computes experts without gate_proj wrong where their input is no multiple of "
        "512 wide (Nemotron-3-Nano's 2688): fluent answers, and false",
        helps="--moe-backend=flashinfer_cutlass",
        flag="--moe-backend=flashinfer_cutlass",
        shows=lambda loaded, file: (
            loaded.packed_experts and not loaded.arch.gated_experts and loaded.arch.expert_hidden % 512 != 0
        ),
        kernels=frozenset(("sm100",)),
        seen=(0, 27),
        known=Known("read", "vLLM's issue 52308; flashinfer's issue 3168"),
    ),
)
