"""Small real checkpoints of every family: the published structure with shrunken sizes and seeded random weights."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from families import configs
from families.headers import headers_for, variant

from halfbyte.checkpoint.header import serialize_header
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "qk_head_dim": 32,
    "v_head_dim": 16,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "vocab_size": 96,
    "n_routed_experts": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_hidden_layers": 5,
    "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "moe_k": 2,
    "moe_num_experts": 4,
    "moe_layer_end_index": 4,
    "attention_head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_head_dim": 16,
    "swa_v_head_dim": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
    "chunk_size": 8,
    "moe_latent_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "top_k_experts": 2,
    "o_groups": 2,
    "o_lora_rank": 16,
}

NUMPY = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
}

FAMILIES = (
    "GLM-5.2",
    "DeepSeek-V3-BF16",
    "Kimi-K2-BF16",
    "GLM-4.7",
    "GLM-4.7-Flash",
    "Qwen3-30B-A3B",
    "MiniMax-M2.5-BF16",
    "Mixtral-8x7B-v0.1",
)
FUSED = ("GLM-5.2-fused-mtp", "Qwen3-30B-A3B-fused", "MiniMax-M2.5-fused", "Mixtral-8x7B-v0.1-fused")


def small_config(name: str) -> dict[str, Any]:
    config = configs.config(name)
    config |= {key: value for key, value in SMALL.items() if key in config}
    if "indexer_types" in config:
        config["indexer_types"] = ["full", "full", "full", "shared", "shared"]
    if "mlp_layer_types" in config:
        config["mlp_layer_types"] = ["dense"] * 3 + ["sparse"] * 2
    if "hybrid_override_pattern" in config:
        config["hybrid_override_pattern"] = "MEM*E"
    if "layers_block_type" in config:
        config["layers_block_type"] = ["mamba", "moe", "mamba", "attention", "moe"]
    if config["model_type"] == "gpt_oss":
        config |= {"layer_types": config["layer_types"][:5], "sliding_window": 8, "pad_token_id": 0, "eos_token_id": 2}
    if config["model_type"] == "gemma4_text":
        near, far = "sliding_attention", "full_attention"
        config |= {"layer_types": [near, near, far, near, far], "sliding_window": 8}
    if config["model_type"] == "longcat_flash":
        config |= {"num_layers": 3, "moe_topk": 3, "zero_expert_num": 2, "head_dim": 16}
        config |= {"ffn_hidden_size": 128, "expert_ffn_hidden_size": 32}
    if "compress_ratios" in config:
        config |= {"compress_ratios": [0, 4, 128, 4, 4, 0], "num_hash_layers": 2, "num_key_value_heads": 1}
        config |= {"qk_rope_head_dim": 8, "sliding_window": 8}
    if isinstance(config.get("moe_topk"), list):
        config |= {"moe_topk": [2] * 5, "intermediate_size": config["moe_intermediate_size"]}
    return config


def runnable_changes(name: str) -> dict[str, Any]:
    """What a small config needs beside its sizes for a forward pass that uses all of its parts."""
    config, changes = small_config(name), dict[str, Any]()
    if "kv_lora_rank" in config:
        changes["num_key_value_heads"] = config["num_attention_heads"]
    if config.get("n_group", 1) > 1:
        changes |= {"n_group": 2, "topk_group": 1}
    if "index_topk" in config:
        changes["index_topk"] = 16
    if "rotary_dim" in config:
        changes["rotary_dim"] = config["head_dim"]
    return changes


def small_tensors(name: str, seed: int = 0, **changes: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and seeded random weights of a small model of the family. changes: of the config."""
    config, random = small_config(name) | changes, np.random.default_rng(seed)
    headers = headers_for(config, variant(name))
    return config, {tensor: drawn(random, config, *header) for tensor, header in headers.items()}


def drawn(random: np.random.Generator, config: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights; of whole numbers, a choice of different experts for each row."""
    if dtype != "I64":
        return (random.standard_normal(shape) * 0.05).astype(NUMPY[dtype])
    return random.permuted(np.tile(np.arange(config["n_routed_experts"]), (shape[0], 1)), axis=1)[:, : shape[1]]


def write_checkpoint(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], shards: int = 2, tokenizer: bool = True
) -> Path:
    """Write a checkpoint folder, tensors dealt to `shards` files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    names = list(tensors)
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[len(names) * i // shards : len(names) * (i + 1) // shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
        (folder / "LICENSE").write_text("MIT")
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    spelled = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
    entries = [(name, spelled[t.dtype], t.shape, t.nbytes) for name, t in tensors.items()]
    entries.sort(key=lambda entry: -DTYPE_BYTES[entry[1]])
    with open(path, "wb") as file:
        file.write(serialize_header(entries, {"format": "pt"}))
        for name, *_ in entries:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def small_checkpoint(folder: Path, name: str = "GLM-5.2", seed: int = 0, shards: int = 2) -> Path:
    return write_checkpoint(folder, *small_tensors(name, seed), shards=shards)
