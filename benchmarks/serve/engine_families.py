"""Small random checkpoints of the newer families, in published names: what a real vLLM computes of them.

    python -m benchmarks.serve.engine_families make OUT [FAMILY...]      # writes, quantizes, streams in float32: no GPU
    python -m benchmarks.serve.engine_families run OUT FAMILY[-nv] [KEY=VALUE...]   # where vLLM is: one GPU

`make` leaves, beside the checkpoint and its NVFP4 one, the log-probabilities of 200 tokens as `halfbyte` streams them
(transformers' own bits, see tests/families). `run` asks vLLM for the same and prints how far it is. KEY=VALUE are
arguments of `vllm.LLM`, in JSON: language_model_only=true for models with towers, dtype='"float16"'.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import ROOT, record

VOCABULARY, HIDDEN, TOKENS = 4096, 512, 200
QWEN = {
    "hidden_size": HIDDEN,
    "intermediate_size": 768,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 128,
    "head_dim": 128,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "num_attention_heads": 8,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 256,
    "vocab_size": VOCABULARY,
}
KIMI = {
    "first_k_dense_replace": 1,
    "hidden_size": HIDDEN,
    "intermediate_size": 768,
    "kv_lora_rank": 512,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "n_group": 1,
    "n_routed_experts": 16,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "topk_group": 1,
    "v_head_dim": 128,
    "vocab_size": VOCABULARY,
}
ERNIE = {
    "hidden_size": HIDDEN,
    "intermediate_size": 768,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "moe_k": 4,
    "moe_layer_end_index": 3,
    "moe_num_experts": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}
HUNYUAN = {
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": [256] * 3,
    "moe_topk": [4] * 3,
    "num_attention_heads": 4,
    "num_experts": 16,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_shared_expert": [1] * 3,
    "vocab_size": VOCABULARY,
}
MIMO = {
    "hidden_size": HIDDEN,
    "hybrid_layer_pattern": [0, 1, 1, 1],
    "intermediate_size": 768,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "moe_layer_freq": [0, 1, 1, 1],
    "n_routed_experts": 16,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "swa_num_attention_heads": 8,
    "swa_num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
}
NEMOTRON = {
    "head_dim": 64,
    "hidden_size": HIDDEN,
    "hybrid_override_pattern": "MEM*E",
    "intermediate_size": 256,
    "mamba_num_heads": 16,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "moe_shared_expert_intermediate_size": 256,
    "n_routed_experts": 16,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 5,
    "vocab_size": VOCABULARY,
}
NEAR, FAR = "sliding_attention", "full_attention"
GEMMA = {
    "global_head_dim": 128,
    "head_dim": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 768,
    "layer_types": [NEAR, FAR],
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 256,
    "num_attention_heads": 8,
    "num_experts": 8,
    "num_global_key_value_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "sliding_window": 64,
    "top_k_experts": 2,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
}
LONGCAT = {
    "expert_ffn_hidden_size": 256,
    "ffn_hidden_size": 768,
    "hidden_size": HIDDEN,
    "kv_lora_rank": 512,
    "max_position_embeddings": 2048,
    "moe_topk": 3,
    "n_routed_experts": 8,
    "num_attention_heads": 4,
    "num_layers": 2,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": VOCABULARY,
    "zero_expert_num": 2,
}
LLAMA = {
    "attention_chunk_size": 8192,
    "head_dim": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "intermediate_size_mlp": 768,
    "max_position_embeddings": 16384,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "vocab_size": VOCABULARY,
}
"""The last of four layers has no positions, and the second and fourth have experts."""
LLAMA_VISION = {
    "hidden_size": 128,
    "image_size": 28,
    "intermediate_size": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "patch_size": 14,
    "projector_input_dim": 128,
    "projector_output_dim": 128,
    "vision_output_dim": 128,
}
VISION = {
    "deepstack_visual_indexes": [],
    "depth": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "num_position_embeddings": 64,
    "out_hidden_size": HIDDEN,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
ROPE = {
    "mrope_interleaved": True,
    "mrope_section": [6, 5, 5],
    "partial_rotary_factor": 0.25,
    "rope_theta": 10000.0,
    "rope_type": "default",
}
ROUTERS = (".mlp.gate.weight", ".mixer.gate.weight", ".router.weight", ".router.proj.weight", ".classifier.weight")
Tensors = dict[str, Any]


def text_config(published: str, changes: dict[str, Any]) -> dict[str, Any]:
    from families.configs import config

    found = config(published)
    for key in ("quantization_config", "rope_scaling"):
        found.pop(key, None)
    return found | {key: value for key, value in changes.items() if key in found}


def tensors_of(config: dict[str, Any], one_centred: bool, outer: Callable[[str], str] = str) -> Tensors:
    """Random, of sizes that keep logits from degenerating. one_centred: norms multiply by one more than a weight."""
    import ml_dtypes
    from families.headers import Variant, headers_for

    dtypes, random = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}, np.random.default_rng(0)
    found: Tensors = {}
    tied = config.get("tie_word_embeddings")  # a token's own embedding must not drown what the layers make of it
    for name, (dtype, shape) in headers_for(config, Variant()).items():
        values = random.standard_normal(shape)
        if name.endswith("A_log"):
            values = np.log(random.uniform(1, 16, shape))
        elif name.endswith("dt_bias"):
            values = random.uniform(-2, 1, shape)
        elif "conv1d" in name:
            values *= 0.5
        elif len(shape) == 1:
            plain = "linear_attn.norm" in name or not (one_centred or name.endswith("bias"))
            values = (0.1 * values + plain) * (8 if tied and name == "model.norm.weight" else 1)
        elif "embed" in name:
            values *= 0.3 / shape[-1] ** 0.5 if tied else 1
        else:
            router = name.endswith(ROUTERS)
            gain = 2.5 if "lm_head" in name else 2 if router else 1.5 if "mlp" in name or "expert" in name else 1
            values *= gain / shape[1] ** 0.5  # of a stack too: its inputs run down
        found[outer(name)] = values.astype(dtypes[dtype])
    return found


def qwen3_next() -> tuple[dict[str, Any], Tensors]:
    config = text_config("Qwen3-Next-80B-A3B", QWEN)
    return config, tensors_of(config, one_centred=True)


def qwen3_5_moe() -> tuple[dict[str, Any], Tensors]:
    """As published: the text model beside a vision tower, whose names are transformers'."""
    import ml_dtypes
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = text_config("Qwen3.5-35B-A3B-text", QWEN) | {"rope_parameters": ROPE}
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model("qwen3_5_moe", text_config=dict(text), vision_config=VISION)
        )
    config = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "image_token_id": VOCABULARY - 1,
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "tie_word_embeddings": False,
        "video_token_id": VOCABULARY - 2,
        "vision_config": VISION | {"model_type": "qwen3_5_moe"},
        "vision_end_token_id": VOCABULARY - 3,
        "vision_start_token_id": VOCABULARY - 4,
    }
    tower = {name: tensor for name, tensor in whole.state_dict().items() if name.startswith("model.visual.")}
    random = np.random.default_rng(1)
    return config, tensors_of(text, True, wrapped(config)) | {
        name: (0.02 * random.standard_normal(tuple(tensor.shape))).astype(ml_dtypes.bfloat16)
        for name, tensor in tower.items()
    }


def kimi_k2() -> tuple[dict[str, Any], Tensors]:
    config = text_config("Kimi-K2-BF16", KIMI)
    return config, tensors_of(config, one_centred=False)


def kimi_k25() -> tuple[dict[str, Any], Tensors]:
    """As published but for the tower, of which only its projector is there: run it with language_model_only=true."""
    import ml_dtypes

    text, _ = kimi_k2()
    config = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "media_placeholder_token_id": VOCABULARY - 1,
        "model_type": "kimi_k25",
        "text_config": text,
        "vision_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        },
    }
    projector = {"mm_projector.proj.0.weight": np.zeros((HIDDEN, HIDDEN), ml_dtypes.bfloat16)}
    return config, tensors_of(text, False, wrapped(config)) | projector


def ernie4_5_moe() -> tuple[dict[str, Any], Tensors]:
    config = text_config("ERNIE-4.5-21B-A3B", ERNIE)
    return config, tensors_of(config, one_centred=False)


def hunyuan_v1_moe() -> tuple[dict[str, Any], Tensors]:
    config = text_config("Hunyuan-A13B", HUNYUAN)
    return config | {"rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}}, tensors_of(config, False)


def mimo_v2_flash() -> tuple[dict[str, Any], Tensors]:
    config = text_config("MiMo-V2-Flash-BF16", MIMO)
    return config, tensors_of(config, one_centred=False)


def nemotron_h() -> tuple[dict[str, Any], Tensors]:
    config = text_config("Nemotron-3-Nano-30B-A3B", NEMOTRON)
    return config, tensors_of(config, one_centred=False)


def gemma4() -> tuple[dict[str, Any], Tensors]:
    """The text model alone."""
    config = text_config("Gemma-4-26B-A4B-text", GEMMA)
    return config, tensors_of(config, one_centred=False)


def longcat_flash() -> tuple[dict[str, Any], Tensors]:
    config = text_config("LongCat-Flash-Chat", LONGCAT)
    return config, tensors_of(config, one_centred=False)


def llama4() -> tuple[dict[str, Any], Tensors]:
    """As published: the text model beside a vision tower, whose names are transformers'."""
    import ml_dtypes
    import torch
    from families.test_towers import LLAMA4
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = LLAMA4 | LLAMA
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model("llama4", text_config=dict(text), vision_config=LLAMA_VISION)
        )
    config = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "boi_token_index": VOCABULARY - 1,
        "eoi_token_index": VOCABULARY - 2,
        "image_token_index": VOCABULARY - 3,
        "model_type": "llama4",
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": LLAMA_VISION | {"model_type": "llama4_vision_model"},
    }
    random = np.random.default_rng(1)
    found = tensors_of(config, one_centred=False)
    for name, tensor in whole.state_dict().items():
        if name.removeprefix("model.").startswith(("vision_model.", "multi_modal_projector.")):
            values = 0.02 * random.standard_normal(tuple(tensor.shape))
            found[name.removeprefix("model.")] = values.astype(ml_dtypes.bfloat16)
    return config, found


def qwen3_vl_moe() -> tuple[dict[str, Any], Tensors]:
    """The text model of Qwen3-VL beside a tower, its experts one by one."""
    import ml_dtypes
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = text_config("Qwen3-30B-A3B", QWEN) | {"model_type": "qwen3_vl_moe_text"}
    text["rope_parameters"] = ROPE | {"mrope_section": [24, 20, 20], "partial_rotary_factor": 1.0}
    vision = VISION | {"deepstack_visual_indexes": [0], "model_type": "qwen3_vl_moe"}
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model("qwen3_vl_moe", text_config=dict(text), vision_config=dict(vision))
        )
    config = {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "image_token_id": VOCABULARY - 1,
        "model_type": "qwen3_vl_moe",
        "text_config": text,
        "tie_word_embeddings": False,
        "video_token_id": VOCABULARY - 2,
        "vision_config": vision,
        "vision_end_token_id": VOCABULARY - 3,
        "vision_start_token_id": VOCABULARY - 4,
    }
    tower = {name: tensor for name, tensor in whole.state_dict().items() if name.startswith("model.visual.")}
    random = np.random.default_rng(1)
    return config, tensors_of(text | {"model_type": "qwen3_moe"}, False, wrapped(config)) | {
        name: (0.02 * random.standard_normal(tuple(tensor.shape))).astype(ml_dtypes.bfloat16)
        for name, tensor in tower.items()
    }


MADE = {
    "gemma4": gemma4,
    "llama4": llama4,
    "longcat_flash": longcat_flash,
    "ernie4_5_moe": ernie4_5_moe,
    "hunyuan_v1_moe": hunyuan_v1_moe,
    "mimo_v2_flash": mimo_v2_flash,
    "nemotron_h": nemotron_h,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_next": qwen3_next,
    "qwen3_5_moe": qwen3_5_moe,
    "kimi_k2": kimi_k2,
    "kimi_k25": kimi_k25,
}


def wrapped(config: dict[str, Any]) -> Callable[[str], str]:
    from halfbyte.models import roles_of

    return roles_of(config).wrapping.outer


def make(out: Path, families: list[str]) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from small import write_checkpoint

    from halfbyte.api import quantize
    from halfbyte.stream.executor import Streamed

    ids = torch.randint(0, VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(1))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "ids.npy", ids.numpy())
    for family in families or MADE:
        for name in (family, f"{family}-nv"):
            shutil.rmtree(out / name, ignore_errors=True)
        write_checkpoint(out / family, *MADE[family](), tokenizer=False)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "examples/tiny-qwen" / name, out / family)
        quantize(out / family, out / f"{family}-nv", input_scale="1")
        for name in (family, f"{family}-nv"):
            with Streamed.open(out / name) as model:
                model.start([ids])
                while model.next_layer < model.layers:
                    model.step()
                np.save(out / f"{name}.npy", model.logits(0, 0, TOKENS).log_softmax(-1).numpy())
        print(f"{family}: made; rounding cost KL {kl(out / f'{family}.npy', np.load(out / f'{family}-nv.npy'))[0]:.2e}")


def kl(reference: Path, found: Any) -> tuple[float, float]:
    """Mean and median over the positions that both have."""
    wanted = np.load(reference)[: len(found)]
    each = (np.exp(wanted) * (wanted - found)).sum(-1)
    return float(each.mean()), float(np.median(each))


def run(out: Path, name: str, given: list[str]) -> None:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # it need not be there
    from vllm import LLM, SamplingParams

    arguments: dict[str, Any] = {
        "model": str(out / name),
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "dtype": "bfloat16",
        "max_model_len": 512,
        "max_logprobs": -1,
        "gpu_memory_utilization": 0.2,
    }
    began = time.monotonic()
    model = LLM(**arguments | {key: json.loads(value) for key, _, value in (one.partition("=") for one in given)})
    seconds = time.monotonic() - began
    asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=-1, detokenize=False)
    answer = model.generate([{"prompt_token_ids": np.load(out / "ids.npy").tolist()}], asked, use_tqdm=False)[0]
    rows = [row for row in answer.prompt_logprobs if row]
    found = np.full((len(rows), VOCABULARY), -np.inf, np.float32)
    for position, row in enumerate(rows):
        for token, one in row.items():
            found[position, token] = one.logprob
    wanted = np.load(out / f"{name}.npy")[: len(rows)]
    mean, median = kl(out / f"{name}.npy", found)
    same = (wanted.argmax(-1) == found.argmax(-1)).mean()
    figures = {"kl_mean": mean, "kl_median": median, "top1": float(same), "load_seconds": seconds}
    record("engine_families", {"checkpoint": name, "arguments": given} | figures)
    print(f"{name}: KL mean {mean:.2e}, median {median:.2e}, top-1 {same:.1%}, loaded in {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "run"])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    if chosen.step == "make":
        make(chosen.out, chosen.names)
    else:
        run(chosen.out, chosen.names[0], chosen.names[1:])


if __name__ == "__main__":
    main()
