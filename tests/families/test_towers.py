"""Text models beside other towers, as they are published: names with prefixes, the towers kept as they are.

Qwen3.5's small checkpoint is saved by transformers, towers and all. Kimi K2.5's is written in the published names: its
text model is DeepSeek-V3's, and is computed as that.
"""

import json
import shutil
from collections import Counter
from functools import cache
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from export.checkpoints import ROPE, SETTINGS, SIZES, family_checkpoint, write_tokenizer
from gguf import GGUFReader
from small import runnable_changes, small_config, write_checkpoint
from stream.models import sequences, streamed_logits, whole_logits
from transformers import AutoConfig, AutoModelForImageTextToText

from halfbyte.chat.hf import Transformers
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UnknownTensorError, UnsupportedError
from halfbyte.models import FAMILIES, architecture_of, promised_tensors, roles_of
from halfbyte.models.roles import Role

from .test_every_family import rows_beside, run

NAMES = ("qwen3_5_moe", "qwen3_vl_moe", "kimi_k25", "glm5_next", "minimax_m3_vl", "gemma4", "llama4")
VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
KIMI_VISION: dict[str, Any] = {
    "vt_hidden_size": 32,
    "vt_intermediate_size": 64,
    "vt_num_hidden_layers": 1,
    "text_hidden_size": 64,
}


GLM5_NEXT: dict[str, Any] = {
    "model_type": "glm5_next_text",
    "first_k_dense_replace": 1,
    "hc_mult": 4,
    "hidden_size": 128,
    "index_head_dim": 16,
    "index_kpool": 4,
    "index_n_heads": 2,
    "index_topk": 16,
    "intermediate_size": 192,
    "kv_lora_rank": 32,
    "layer_types": [*["linear_attention"] * 3, "indexed_attention", "linear_attention"],
    "linear_conv_kernel_dim": 4,
    "linear_head_dim": 16,
    "linear_num_heads": 4,
    "max_position_embeddings": 4096,
    "mlp_layer_types": ["dense", *["sparse"] * 4],
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 5,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 0,
    "swiglu_limit": 0.05,
    "tie_word_embeddings": False,
    "v_head_dim": 16,
    "vocab_size": 320,
}
"""A limit so low that it clamps: what small random weights give would never reach the published one."""
GLM5_NEXT_VISION = {"depth": 1, "out_hidden_size": 128, "projection_intermediate_size": 64, "patch_size": 4}


MINIMAX_M3: dict[str, Any] = {
    "model_type": "minimax_m3_vl_text",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dense_intermediate_size": 192,
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 64,
    "max_position_embeddings": 4096,
    "moe_layer_freq": [0, 1, 1],
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "rotary_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    "shared_intermediate_size": 64,
    "sparse_attention_config": {
        "sparse_attention_freq": [0, 1, 1],
        "sparse_block_size": 8,
        "sparse_index_dim": 32,
        "sparse_local_block": 1,
        "sparse_num_index_heads": 2,
        "sparse_topk_blocks": 2,
    },
    "swiglu_limit": 0.05,
    "tie_word_embeddings": False,
    "vocab_size": 320,
}
MINIMAX_M3_VISION = {"hidden_size": 32, "image_size": 28, "intermediate_size": 64, "num_attention_heads": 2}
MINIMAX_M3_VISION |= {"num_hidden_layers": 1}


GEMMA4_VISION = {
    "head_dim": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "patch_size": 4,
    "position_embedding_size": 16,
    "standardize": True,
}
LLAMA4: dict[str, Any] = {
    "model_type": "llama4_text",
    "attention_bias": False,
    "attention_chunk_size": 16,
    "attn_scale": 0.1,
    "attn_temperature_tuning": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "floor_scale": 4,
    "head_dim": 32,
    "hidden_size": 128,
    "interleave_moe_layer_step": 2,
    "intermediate_size": 64,
    "intermediate_size_mlp": 192,
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "vocab_size": 320,
}
"""Maverick's layers with Scout's norms: a dense one, one with experts, and the same without positions."""
LLAMA4_VISION = {"hidden_size": 32, "image_size": 28, "intermediate_size": 64, "num_attention_heads": 2}
LLAMA4_VISION |= {"num_hidden_layers": 1, "projector_input_dim": 64, "projector_output_dim": 64}
LLAMA4_VISION |= {"vision_output_dim": 64}


@cache
def source(name: str) -> Path:
    folder = Path(mkdtemp(prefix="halfbyte-tower-")) / "source"
    if name == "gemma4":
        return _saved(folder, name, small_config("Gemma-4-26B-A4B-text") | SIZES, GEMMA4_VISION, audio_config=None)
    if name == "glm5_next":
        vision = {key: value for key, value in VISION.items() if key != "num_position_embeddings"}
        return _saved(folder, name, GLM5_NEXT, vision | GLM5_NEXT_VISION)
    if name == "minimax_m3_vl":
        return minimax_m3(folder)
    if name == "llama4":
        return llama4(folder)
    return _kimi(folder) if name == "kimi_k25" else _qwen(folder, name)


def minimax_m3(folder: Path, **changes: Any) -> Path:
    return _saved(folder, "minimax_m3_vl", MINIMAX_M3 | changes, MINIMAX_M3_VISION, projector_hidden_size=64)


def llama4(folder: Path, **changes: Any) -> Path:
    return _saved(folder, "llama4", LLAMA4 | changes, LLAMA4_VISION)


def _saved(folder: Path, name: str, text: dict[str, Any], vision: dict[str, Any], **more: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, text_config=text, vision_config=vision, **more)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    for part, buffer in model.named_buffers():
        if part.endswith("e_score_correction_bias"):
            buffer.data = buffer.data.float()
    model.save_pretrained(folder, max_shard_size="300KB")
    write_tokenizer(folder, name)
    return folder


def _qwen(folder: Path, name: str) -> Path:
    small = {"qwen3_5_moe": "Qwen3.5-35B-A3B-text", "qwen3_vl_moe": "Qwen3-30B-A3B"}[name]
    text = ROPE | small_config(small) | SIZES | runnable_changes(small) | SETTINGS[small]
    vision = dict(VISION)
    if name == "qwen3_vl_moe":
        mrope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        text |= {"model_type": "qwen3_vl_moe_text", "rope_parameters": mrope}
        vision["deepstack_visual_indexes"] = [0]
        text["moe_intermediate_size"] = 32
    _saved(folder, name, text, vision)
    if name == "qwen3_vl_moe":
        _turn(folder)
    return folder


def _turn(folder: Path) -> None:
    """Stacks of experts as Qwen publishes them, inputs down, which transformers loads and does not write."""
    with Checkpoint.open(folder) as checkpoint:
        tensors, config = arrays(checkpoint), checkpoint.config
    turned = {name: np.ascontiguousarray(one.swapaxes(1, 2)) for name, one in tensors.items() if ".experts." in name}
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    write_checkpoint(folder, config, tensors | turned, tokenizer=False)


def arrays(checkpoint: Checkpoint) -> dict[str, Any]:
    dtypes = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
    return {
        name: np.frombuffer(content(checkpoint, name), dtypes[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in checkpoint.tensors.items()
    }


def _kimi(folder: Path) -> Path:
    """Kimi K2's own small checkpoint, renamed, beside a tower of a few tensors."""
    alone = family_checkpoint(folder.parent / "alone", "Kimi-K2-BF16", **runnable_changes("Kimi-K2-BF16"))
    config = json.loads((alone / "config.json").read_text())
    tensors: dict[str, Any] = {}
    with Checkpoint.open(alone) as checkpoint:
        wrapping = roles_of({"model_type": "kimi_k25", "text_config": config}).wrapping
        tensors |= {wrapping.outer(tensor): found for tensor, found in arrays(checkpoint).items()}
    random = np.random.default_rng(0)
    for name, shape in {
        "vision_tower.patch_embed.proj.weight": (32, 3, 2, 2),
        "vision_tower.encoder.blocks.0.wqkv.weight": (96, 32),
        "vision_tower.encoder.blocks.0.wqkv.bias": (96,),
        "vision_tower.encoder.blocks.0.mlp.fc0.weight": (64, 32),
        "mm_projector.proj.0.weight": (64, 128),
    }.items():
        tensors[name] = random.standard_normal(shape).astype(ml_dtypes.bfloat16)
    outer = {"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25"}
    write_checkpoint(folder, outer | {"text_config": config, "vision_config": KIMI_VISION}, tensors, tokenizer=False)
    for path in alone.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copy(path, folder)
    return folder


def content(checkpoint: Checkpoint, name: str) -> bytes:
    found = bytearray(checkpoint.tensors[name].bytes)
    checkpoint.read_into(checkpoint.tensors[name], memoryview(found))
    return bytes(found)


@cache
def data(name: str) -> Path:
    return rows_beside(source(name))


@cache
def quantized(name: str) -> Path:
    out = source(name).parent / "quantized"
    run("quantize", source(name), out, "--calibrate", data(name))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_the_tower_is_kept_to_the_byte(name: str) -> None:
    assert run("verify", source(name), quantized(name))["ok"]
    groups = {(group["role"], group["format"]) for group in run("inspect", quantized(name))["groups"]}
    assert ("routed_expert", "nvfp4") in groups
    assert {form for role, form in groups if role == "tower"} <= {"bf16", "f32"}
    with Checkpoint.open(source(name)) as before, Checkpoint.open(quantized(name)) as after:
        roles = roles_of(before.config)
        towers = [tensor for tensor in before.tensors if roles.role(tensor).role is Role.TOWER]
        assert len(towers) >= 5
        for tensor in towers:
            assert content(before, tensor) == content(after, tensor)
        named = after.config["quantization_config"]["ignore"]
    assert any(tower in one for one in named for tower in ("visual*", "vision_tower*", "vision_model*"))
    beginnings = tuple(one.removesuffix(".") for one in roles.wrapping.towers)
    beginnings += ("model.visual", "lm_head", roles.layers_path.partition(".")[0])
    assert all(one.startswith(beginnings) for one in named)


@pytest.mark.parametrize("name", NAMES)
def test_gate_and_plan(name: str) -> None:
    words = ("--engine", "vllm", "--depth", "full", "--format", "json")
    assert run("gate", quantized(name), *words)["decision"] == "pass"
    size = ("--gpu", "h100", "--gpus", "1", "--context", "1024")
    read = run("plan", quantized(name), *size)
    paper = run("plan", source(name) / "config.json", "--recipe", "nvfp4-routed-experts", *size)
    assert read["fits"]
    assert abs(read["checkpoint_bytes"] - paper["checkpoint_bytes"]) < 0.3 * paper["checkpoint_bytes"]


def test_glm_53_flash_at_full_size() -> None:
    """By hand, from the published sizes: 45 layers, 11 of them attending, 3 dense, 288 experts."""
    sizes = {"hc_mult": 4, "hidden_size": 4096, "index_head_dim": 128, "index_kpool": 16, "index_n_heads": 32}
    sizes |= {"index_topk": 2048, "intermediate_size": 12288, "kv_lora_rank": 512, "linear_conv_kernel_dim": 4}
    sizes |= {"linear_head_dim": 128, "linear_num_heads": 64, "moe_intermediate_size": 2048, "n_routed_experts": 288}
    sizes |= {"num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 45, "q_lora_rank": 1536}
    sizes |= {"qk_nope_head_dim": 256, "v_head_dim": 256, "vocab_size": 154880, "max_position_embeddings": 1048576}
    text = GLM5_NEXT | sizes | {"layer_types": None, "mlp_layer_types": None, "first_k_dense_replace": 3}
    found = Counter[str]()
    for tensor in promised_tensors(architecture_of({"model_type": "glm5_next", "text_config": text})):
        found[str(tensor.role)] += tensor.count * prod(tensor.shape)
    h, wide, width = 4096, 64 * 128, 2048
    delta = h * (4 * wide + 64 + 2 * 128) + 2 * 128 * wide + 3 * wide * 4 + wide + 64 + 128
    latent = 1536 * h + 1536 + 64 * 256 * 1536 + 512 * h + 512 + 64 * 512 * 512 + h * 64 * 256
    pooled = 32 * 128 * 1536 + 128 * h + 2 * 128 + 32 * h + 16 * 128 + 128 * h
    assert found == {
        "routed_expert": 42 * 288 * 3 * h * width,
        "shared_expert": 42 * 3 * h * width,
        "dense_mlp": 3 * 3 * h * 12288,
        "router": 42 * (288 * h + 288),
        "linear_attention": 34 * delta,
        "attention": 11 * latent,
        "indexer": 11 * pooled,
        "hyper_connection": 45 * 2 * (24 * 4 * h + 24 + 3),
        "norm": 91 * h,
        "embedding": 154880 * h,
        "lm_head": 154880 * h,
    }


def test_minimax_m3_at_full_size() -> None:
    """What its makers call 427 billion: 426.17 in the text model, 0.86 in the tower."""
    sizes = {"dense_intermediate_size": 12288, "head_dim": 128, "hidden_size": 6144, "intermediate_size": 3072}
    sizes |= {"num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 60, "num_key_value_heads": 4}
    sizes |= {"num_local_experts": 128, "shared_intermediate_size": 3072, "vocab_size": 200064}
    late = [0] * 3 + [1] * 57
    selected = {
        "sparse_block_size": 128,
        "sparse_index_dim": 128,
        "sparse_num_index_heads": 4,
        "sparse_topk_blocks": 16,
    }
    text = MINIMAX_M3 | sizes | {"moe_layer_freq": late}
    text["sparse_attention_config"] = selected | {"sparse_attention_freq": late}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "spatial_merge_size": 2}
    arch = architecture_of({"model_type": "minimax_m3_vl", "text_config": text, "vision_config": vision})
    total = sum(tensor.count * prod(tensor.shape) for tensor in promised_tensors(arch)) + arch.vision_bytes // 2
    assert total == pytest.approx(427e9, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_compare(name: str) -> None:
    document = run("compare", source(name), quantized(name), "--data", data(name))
    assert 0 < document["kl"]["mean"] < {"kimi_k25": 1e-6, "glm5_next": 1e-4, "minimax_m3_vl": 0.3}.get(name, 0.1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "kimi_k25"])
def test_streamed_logits_are_transformers_bits(name: str) -> None:
    """Of the whole model, towers and all, asked with text."""
    ids = sequences(256)
    model = AutoModelForImageTextToText.from_pretrained(
        source(name), dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    with torch.no_grad():
        wanted = [model(input_ids=row[None], use_cache=False).logits[0] for row in ids]
    for got, want in zip(streamed_logits(source(name), ids), wanted, strict=True):
        assert torch.equal(got, want)


def test_streamed_logits_are_those_of_the_text_model_alone() -> None:
    ids = sequences(256)
    alone = source("kimi_k25").parent / "alone"
    for got, want in zip(streamed_logits(source("kimi_k25"), ids), whole_logits(alone, ids), strict=True):
        assert torch.equal(got, want)


def test_turned_stacks_are_the_same_experts(tmp_path: Path) -> None:
    """Qwen3-VL's stacks with their last two axes swapped are Qwen3's: quantized, not one byte differs."""
    there = source("qwen3_vl_moe")
    with Checkpoint.open(there) as checkpoint:
        stacks = [tensor for tensor in checkpoint.tensors.values() if ".experts." in tensor.name]
        assert {tensor.shape[1:] for tensor in stacks} == {(128, 64), (32, 128)}
        roles, tensors = roles_of(checkpoint.config), dict[str, Any]()
        for tensor, found in arrays(checkpoint).items():
            if roles.role(tensor).role is not Role.TOWER:
                tensors[roles.wrapping.inner(tensor)] = found.swapaxes(1, 2) if ".experts." in tensor else found
    text = json.loads((there / "config.json").read_text())["text_config"]
    alone = text | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
    write_checkpoint(tmp_path / "alone", alone, {name: np.ascontiguousarray(one) for name, one in tensors.items()})
    run("quantize", tmp_path / "alone", tmp_path / "out", "--input-scale", "1")
    run("quantize", there, tmp_path / "towers", "--input-scale", "1")
    with Checkpoint.open(tmp_path / "out") as one, Checkpoint.open(tmp_path / "towers") as other:
        for name in one.tensors:
            assert content(one, name) == content(other, roles.wrapping.outer(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_tower_is_unknown(name: str) -> None:
    roles = roles_of(json.loads((source(name) / "config.json").read_text()))
    for wrong in ("model.audio.proj.weight", f"{roles.layer_path(99)}.mlp.gate.weight", "visual.x.weight"):
        with pytest.raises(UnknownTensorError):
            roles.role(wrong)


FIXED = {
    "minimax_m3_vl": "swiglu_limit is 0.05, llama.cpp takes 7.0",
    "llama4": "attention_chunk_size is 16, llama.cpp takes 8192",
}
"""Small models with smaller numbers than llama.cpp has, so that what depends on them shows; test_engine.py exports them
with its."""


@pytest.mark.parametrize("name", NAMES)
def test_export_takes_the_text_model_out_or_says_why_not(name: str, tmp_path: Path) -> None:
    out, known = tmp_path / "a.gguf", FAMILIES[name].llama_cpp
    if known is None or not known.beside_towers:
        refused = run("export", source(name), out, code=1)["error"]["message"]
        assert "is not described" in refused or "beside other towers" in refused
        return
    if name in FIXED:
        assert FIXED[name] in run("export", source(name), out, code=1)["error"]["message"]
        return
    with Checkpoint.open(source(name)) as checkpoint:
        roles = roles_of(checkpoint.config)
        towers = [tensor for tensor in checkpoint.tensors if roles.role(tensor).role is Role.TOWER]
    assert set(run("export", source(name), out)["dropped"]) >= set(towers)
    assert run("verify", source(name), out)["ok"]
    scaled = Role.ROUTED_EXPERT in known.scaled
    answer = run("export", quantized(name), tmp_path / "b.gguf", code=0 if scaled else 1)
    assert scaled or "does not apply the NVFP4 scale" in answer["error"]["message"]
    assert not scaled or run("verify", quantized(name), tmp_path / "b.gguf")["ok"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"floor_scale": 4096}, "floor_scale is 4096, llama.cpp takes 8192"),
        ({"attn_scale": 0.2}, "attn_scale is 0.2"),
        ({"attn_temperature_tuning": False}, "attn_temperature_tuning is off"),
        ({"no_rope_layers": [1, 1, 0, 1]}, "leaves positions out of every 4th layer"),
        ({"no_rope_layer_interval": 2}, "leaves positions out of every 4th layer"),
        ({"layer_types": ["full_attention"] * 4}, "every 4th layer attends to all"),
        ({"use_qk_norm": False}, "normalises queries and keys of all but 128 experts"),
        ({"num_local_experts": 128}, "normalises queries and keys of all but 128 experts"),
    ],
)
def test_llama4_is_exported_as_llamacpp_has_it_only(changes: dict[str, Any], says: str) -> None:
    known = FAMILIES["llama4"].llama_cpp
    assert known is not None
    text = LLAMA4 | {"attention_chunk_size": 8192, "floor_scale": 8192}
    config = {"model_type": "llama4", "text_config": text}
    assert dict(known.keys(text, architecture_of(config)))["interleave_moe_layer_step"] == 2
    config["text_config"] = text | changes
    with pytest.raises(UnsupportedError, match=says):
        list(known.keys(text | changes, architecture_of(config)))


def test_a_text_model_by_itself_gives_the_same_file(tmp_path: Path) -> None:
    """Kimi K2.5's is Kimi K2: every tensor, and every hyperparameter."""
    found = []
    for number, folder in enumerate((source("kimi_k25"), source("kimi_k25").parent / "alone")):
        run("export", folder, tmp_path / f"{number}.gguf")
        reader = GGUFReader(tmp_path / f"{number}.gguf")
        tensors = {tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in reader.tensors}
        keys = {name: one.contents() for name, one in reader.fields.items() if name.startswith("deepseek2.")}
        found.append((tensors, keys))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", NAMES)
def test_chat_says_that_it_takes_no_towers(name: str) -> None:
    with pytest.raises(UnsupportedError, match="beside other towers"):
        Transformers(quantized(name))
