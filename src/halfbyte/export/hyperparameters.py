"""`config.json` as the hyperparameters llama.cpp reads: those of every family here, the others by the family's file.

Source: `conversion/{base,deepseek,glm,qwen,minimax,llama}.py` in the copy of llama.cpp inside llama-cpp-python 0.3.36;
tests/export/llamacpp.json holds what it wrote. Keys are set through the `gguf` package, which knows their types.
"""

from collections.abc import Callable
from typing import Any

from gguf import ExpertGatingFuncType, GGUFWriter, RopeScalingType

from halfbyte.errors import UnsupportedError
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.llama_cpp import LlamaCpp, need
from halfbyte.models.reading import rope_parameters

GATING = {"sigmoid": ExpertGatingFuncType.SIGMOID, "softmax": ExpertGatingFuncType.SOFTMAX}


def add_hyperparameters(
    writer: GGUFWriter, config: Config, arch: Architecture, architecture: LlamaCpp, blocks: int
) -> None:
    """Set every key under the architecture's name. config: of the text model. blocks: layers in the file, MTP layers
    included; `arch` counts those that are in it.

    Raises CheckpointError for a key that is missing, UnsupportedError for a value llama.cpp cannot express.
    """
    config = architecture.usual(config)
    _add_common(writer, config, arch, blocks)
    for name, value in architecture.keys(config, arch):
        if name in UNNAMED:
            adders: dict[type, Callable[[str, Any], None]] = {
                list: writer.add_array,
                float: writer.add_float32,
                int: writer.add_uint32,
            }
            adders[type(value)](f"{writer.arch}.{UNNAMED[name]}", value)
        else:
            getattr(writer, f"add_{name}")(SPELLED.get(name, _as_it_is)(value))


def _as_it_is(value: Any) -> Any:
    return value


SPELLED: dict[str, Callable[[Any], Any]] = {
    "expert_gating_func": GATING.__getitem__,
    "rope_scaling_type": RopeScalingType,
}
"""What gguf wants as members of its own."""

UNNAMED = {
    "indexer_types": "attention.indexer.types",
    "indexer_block_size": "attention.indexer.block_size",
    "indexer_local_blocks": "attention.indexer.local_blocks",
    "attn_value_scale": "attention.value_scale",
}
"""Arrays and numbers for which gguf 0.19 has no method."""


def _add_common(writer: GGUFWriter, config: Config, arch: Architecture, blocks: int) -> None:
    writer.add_block_count(blocks)
    writer.add_context_length(need(config, "max_position_embeddings"))
    writer.add_embedding_length(arch.hidden)
    if config.get("intermediate_size") is not None:
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(1 if arch.mla is not None else arch.kv_heads)
    writer.add_layer_norm_rms_eps(need(config, "rms_norm_eps"))
    writer.add_expert_count(arch.experts)
    writer.add_expert_used_count(arch.top_k)
    for key, add in (
        ("n_group", writer.add_expert_group_count),
        ("topk_group", writer.add_expert_group_used_count),
        ("head_dim", writer.add_key_length),
        ("head_dim", writer.add_value_length),
    ):
        if config.get(key) is not None:
            add(config[key])
    if config.get("scoring_func") is not None:
        if config["scoring_func"] not in GATING:
            raise UnsupportedError(f"config.json: scoring_func {config['scoring_func']!r} is unknown to llama.cpp")
        writer.add_expert_gating_func(GATING[config["scoring_func"]])
    _add_rope(writer, config)


def _add_rope(writer: GGUFWriter, config: Config) -> None:
    rope = rope_parameters(config)
    if rope.get("mrope_section") is not None:
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0, 0, 0, 0][:4])
    writer.add_rope_freq_base(need(rope, "rope_theta"))
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    if kind == "default":
        return
    if kind not in ("linear", "yarn") or factor is None:
        raise UnsupportedError(f"config.json: rope type {kind!r} with factor {factor} is not exported")
    writer.add_rope_scaling_type(RopeScalingType.YARN if kind == "yarn" else RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(factor)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(need(rope, "original_max_position_embeddings"))
        for keys, add in (
            (("extrapolation_factor",), writer.add_rope_scaling_yarn_ext_factor),
            (("attention_factor", "attn_factor"), writer.add_rope_scaling_yarn_attn_factor),
            (("beta_fast",), writer.add_rope_scaling_yarn_beta_fast),
            (("beta_slow",), writer.add_rope_scaling_yarn_beta_slow),
        ):
            value = next((rope[key] for key in keys if rope.get(key) is not None), None)
            if value is not None:
                add(value)
