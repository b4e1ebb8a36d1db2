"""SGLang's faults with NVFP4 checkpoints. Run: 0.5.15.post1 on one H100. Read: 0.5.23 (docs/engines.md 12)."""

from halfbyte.engines.faults import HOPPER, Fault, Loaded
from halfbyte.models.family import Known

RUN = (0, 5, 15)
READ = (0, 5, 23)
DEEPSEEK, GLM4, GLM4_LITE = "deepseek_v2", "glm4_moe", "glm4_moe_lite"
WAS_RUN = Known("run", "SGLang 0.5.15.post1 on one H100")


def _fuses_kept_shared(loaded: Loaded, file: str) -> bool:
    if not (loaded.packed_experts and loaded.kept_shared):
        return False
    one_of_256 = loaded.arch.experts == 256 and loaded.arch.shared_width == loaded.arch.expert_width
    return file == GLM4 or (file == DEEPSEEK and one_of_256)


def _scales_twice(loaded: Loaded, file: str) -> bool:
    return loaded.packed_experts and loaded.routed_scale != 1 and file in (DEEPSEEK, GLM4, GLM4_LITE)


def _odd_head_dim(loaded: Loaded, file: str) -> bool:
    return file == "mixtral" and loaded.arch.head_dim * loaded.arch.heads != loaded.arch.hidden


FAULTS = (
    Fault(
        name="shared-experts-fusion",
        what="a shared expert kept in 16 bits is fused into the packed experts, and loading stops",
        helps="--disable-shared-experts-fusion",
        flag="--disable-shared-experts-fusion",
        shows=_fuses_kept_shared,
        kernels=HOPPER,
        mended={DEEPSEEK: READ},
        seen=READ,
        known=Known("run", "SGLang 0.5.15.post1 on one H100; 0.5.23 read"),
    ),
    Fault(
        name="shared-experts-fused",
        what="a shared expert kept in 16 bits is expected among the packed experts",
        helps="--disable-shared-experts-fusion",
        flag="--disable-shared-experts-fusion",
        shows=lambda loaded, file: file == "minimax_m3" and loaded.packed_experts and loaded.kept_shared,
        seen=READ,
        known=Known("read", "SGLang at 73353bf, minimax_m3.py"),
        fatal=False,
    ),
    Fault(
        name="exclusions-not-looked-up",
        what="layers are built without their names, so that nothing matches the exclusion list and what was kept in 16 "
        "bits is expected packed",
        helps="vLLM",
        shows=lambda loaded, file: file == "hunyuan" and loaded.packed_experts,
        seen=READ,
        known=Known("read", "SGLang at 0818561, hunyuan.py"),
        fatal=False,
    ),
    Fault(
        name="routed-scaling-twice",
        what="experts on Marlin apply routed_scaling_factor twice: wrong answers, and nothing in the log",
        helps="vLLM",
        shows=_scales_twice,
        kernels=HOPPER,
        mended={DEEPSEEK: READ},
        seen=READ,
        known=Known("run", "SGLang 0.5.15.post1 on one H100: KL 3.3, top-1 19 % at a factor of 2.5; 0.5.23 read"),
    ),
    Fault(
        name="weight-only",
        what="W4A16_NVFP4 is refused",
        helps="a recipe with algorithm NVFP4",
        shows=lambda loaded, file: loaded.algorithm == "W4A16_NVFP4",
        mended=dict.fromkeys((DEEPSEEK, GLM4, GLM4_LITE, "qwen3_moe", "mixtral", "minimax_m2"), READ),
        seen=RUN,
        known=WAS_RUN,
    ),
    Fault(
        name="qwen3-dense-layers",
        what="layers without experts (mlp_only_layers, decoder_sparse_step) give NaN, 16-bit weights too",
        helps="vLLM",
        shows=lambda loaded, file: file in ("qwen3_moe", "qwen3_vl_moe") and bool(loaded.arch.dense),
        seen=RUN,
        known=Known("run", f"{WAS_RUN.where}: qwen3_moe; qwen3_vl_moe.py at 0e0ee12 takes the same layers, read"),
    ),
    Fault(
        name="stacked-experts",
        what="releases without a loader of stacked NVFP4 experts leave their scales out, without a word in the log",
        helps="a version that has FusedMoE.make_expert_params_mapping_fused_nvfp4",
        shows=lambda loaded, file: loaded.packed_experts and loaded.family.support("sglang").stacks is True,
        seen=READ,
        known=Known(
            "read",
            "SGLang at e914904, gpt_oss.py: has none; its main's test of fused NVFP4 experts, for "
            "mmangkad/gpt-oss-120b-nvfp4: has one",
        ),
        fatal=False,
    ),
    Fault(
        name="stacked-scales",
        what="mllama4.py takes the block scales of a stack of experts for those of one, and loading stops",
        helps="vLLM",
        shows=lambda loaded, file: loaded.packed_experts and loaded.family.support("sglang").stacks is False,
        seen=READ,
        known=Known("read", "SGLang at 0076e71, mllama4.py, _handle_expert_scale_params; its pull request 35032, open"),
    ),
    Fault(
        name="mixtral-head-dim",
        what="a head_dim other than hidden_size / num_attention_heads stops at the first token",
        helps="vLLM",
        shows=_odd_head_dim,
        seen=RUN,
        known=WAS_RUN,
    ),
    Fault(
        name="indexer-heads",
        what="DeepGEMM's indexer kernels want 32 or 64 heads",
        helps="transformers or llama.cpp",
        shows=lambda loaded, file: loaded.arch.indexer is not None and loaded.arch.indexer.heads not in (32, 64),
        kernels=frozenset(("sm90",)),
        seen=READ,
        known=Known("read", "SGLang 0.5.23"),
        fatal=False,
    ),
)
