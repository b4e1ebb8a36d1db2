"""`config.json` as the hyperparameters llama.cpp reads. Keys and types follow its converter, family by family.

Source: `conversion/{base,deepseek,glm,qwen,minimax,llama}.py` in the copy of llama.cpp inside llama-cpp-python 0.3.36;
tests/export/llamacpp.json holds what it wrote. Keys are set through the `gguf` package, which knows their types.
"""

from collections.abc import Callable
from typing import Any

from gguf import ExpertGatingFuncType, GGUFWriter, RopeScalingType

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.role_map import RoleMap

Config = dict[str, Any]


def add_hyperparameters(writer: GGUFWriter, config: Config, roles: RoleMap, blocks: int) -> None:
    """Set every key under the architecture's name. blocks: layers in the file, MTP layers included.

    Raises CheckpointError for a key that is missing, UnsupportedError for a value llama.cpp cannot express.
    """
    _add_common(writer, config, roles, blocks)
    _FAMILIES[roles.family.model_type](writer, config, roles)


def _need(config: Config, key: str) -> Any:
    if config.get(key) is None:
        raise CheckpointError(f"config.json has no {key}, which llama.cpp needs")
    return config[key]


def _add_common(writer: GGUFWriter, config: Config, roles: RoleMap, blocks: int) -> None:
    writer.add_block_count(blocks)
    writer.add_context_length(_need(config, "max_position_embeddings"))
    writer.add_embedding_length(_need(config, "hidden_size"))
    writer.add_feed_forward_length(_need(config, "intermediate_size"))
    writer.add_head_count(_need(config, "num_attention_heads"))
    writer.add_head_count_kv(1 if "kv_lora_rank" in config else _need(config, "num_key_value_heads"))
    writer.add_layer_norm_rms_eps(_need(config, "rms_norm_eps"))
    writer.add_expert_count(roles.num_experts)
    writer.add_expert_used_count(_need(config, "num_experts_per_tok"))
    for key, add in (
        ("n_group", writer.add_expert_group_count),
        ("topk_group", writer.add_expert_group_used_count),
        ("head_dim", writer.add_key_length),
        ("head_dim", writer.add_value_length),
    ):
        if config.get(key) is not None:
            add(config[key])
    if config.get("scoring_func") is not None:
        kinds = {"sigmoid": ExpertGatingFuncType.SIGMOID, "softmax": ExpertGatingFuncType.SOFTMAX}
        if config["scoring_func"] not in kinds:
            raise UnsupportedError(f"config.json: scoring_func {config['scoring_func']!r} is unknown to llama.cpp")
        writer.add_expert_gating_func(kinds[config["scoring_func"]])
    _add_rope(writer, config)


def _add_rope(writer: GGUFWriter, config: Config) -> None:
    rope = rope_parameters(config)
    writer.add_rope_freq_base(_need(rope, "rope_theta"))
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    if kind == "default":
        return
    if kind not in ("linear", "yarn") or factor is None:
        raise UnsupportedError(f"config.json: rope type {kind!r} with factor {factor} is not exported")
    writer.add_rope_scaling_type(RopeScalingType.YARN if kind == "yarn" else RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(factor)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(_need(rope, "original_max_position_embeddings"))
        for keys, add in (
            (("extrapolation_factor",), writer.add_rope_scaling_yarn_ext_factor),
            (("attention_factor", "attn_factor"), writer.add_rope_scaling_yarn_attn_factor),
            (("beta_fast",), writer.add_rope_scaling_yarn_beta_fast),
            (("beta_slow",), writer.add_rope_scaling_yarn_beta_slow),
        ):
            value = next((rope[key] for key in keys if rope.get(key) is not None), None)
            if value is not None:
                add(value)


def rope_parameters(config: Config) -> Config:
    """The rope settings in one dictionary: newer configs nest them in `rope_parameters`, older ones spread them."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        if rope.get(key) is None and config.get(key) is not None:
            rope[key] = config[key]
    if "rope_type" not in rope and "type" in rope:
        rope["rope_type"] = rope["type"]
    return rope


def _add_deepseek(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    """MLA and experts of deepseek_v3, v32 and glm_moe_dsa. llama.cpp runs MLA as one key-value head of the latent."""
    rank, rope_dim = _need(config, "kv_lora_rank"), _need(config, "qk_rope_head_dim")
    writer.add_leading_dense_block_count(_leading_dense(roles))
    writer.add_vocab_size(_need(config, "vocab_size"))
    if config.get("q_lora_rank") is not None:
        writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rope_dim)
    writer.add_value_length(rank)
    writer.add_key_length_mla(_need(config, "qk_nope_head_dim") + rope_dim)
    writer.add_value_length_mla(_need(config, "v_head_dim"))
    writer.add_expert_feed_forward_length(_need(config, "moe_intermediate_size"))
    writer.add_expert_shared_count(config.get("n_shared_experts") or 0)
    if config.get("routed_scaling_factor") is not None:
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
    if config.get("norm_topk_prob"):
        writer.add_expert_weights_norm(True)
    writer.add_rope_dimension_count(rope_dim)
    mscale = rope_parameters(config).get("mscale_all_dim")
    if mscale is not None:
        writer.add_rope_scaling_yarn_log_mul(0.1 * mscale)  # the loader divides by 0.1 again


def _add_indexer(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    _add_deepseek(writer, config, roles)
    _add_mtp(writer, config)
    writer.add_indexer_head_count(_need(config, "index_n_heads"))
    writer.add_indexer_key_length(_need(config, "index_head_dim"))
    writer.add_indexer_top_k(_need(config, "index_topk"))


def _add_glm_dsa(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    _add_indexer(writer, config, roles)
    partial = rope_parameters(config).get("partial_rotary_factor", 1.0)
    writer.add_rope_dimension_count(int(config["qk_rope_head_dim"] * partial))
    full = [layer in roles.indexers for layer in range(roles.layers)]
    writer.add_array(f"{writer.arch}.attention.indexer.types", full)  # gguf 0.19 has no method for it


def _add_glm4(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    head_dim = config.get("head_dim") or _need(config, "hidden_size") // _need(config, "num_attention_heads")
    writer.add_rope_dimension_count(int(head_dim * rope_parameters(config).get("partial_rotary_factor", 0.5)))
    writer.add_expert_feed_forward_length(_need(config, "moe_intermediate_size"))
    writer.add_expert_shared_count(_need(config, "n_shared_experts"))
    writer.add_leading_dense_block_count(_leading_dense(roles))
    writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_scale(_need(config, "routed_scaling_factor"))
    writer.add_expert_weights_norm(_need(config, "norm_topk_prob"))
    _add_mtp(writer, config)


def _add_qwen3(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    if roles.dense:
        raise UnsupportedError(f"layer {min(roles.dense)} is dense: llama.cpp's qwen3moe has experts in every layer")
    writer.add_expert_feed_forward_length(_need(config, "moe_intermediate_size"))


def _add_minimax(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    writer.add_expert_feed_forward_length(_need(config, "intermediate_size"))
    writer.add_rope_dimension_count(_need(config, "rotary_dim"))


def _add_mixtral(writer: GGUFWriter, config: Config, roles: RoleMap) -> None:
    writer.add_vocab_size(_need(config, "vocab_size"))
    head_dim = config.get("head_dim") or _need(config, "hidden_size") // _need(config, "num_attention_heads")
    writer.add_rope_dimension_count(head_dim)


def _add_mtp(writer: GGUFWriter, config: Config) -> None:
    if config.get("num_nextn_predict_layers") is not None:
        writer.add_nextn_predict_layers(config["num_nextn_predict_layers"])


def _leading_dense(roles: RoleMap) -> int:
    """Number of dense layers, which llama.cpp assumes to come first."""
    if roles.dense != frozenset(range(len(roles.dense))):
        raise UnsupportedError(f"dense layers {sorted(roles.dense)[:8]}: llama.cpp wants them before all others")
    return len(roles.dense)


_FAMILIES: dict[str, Callable[[GGUFWriter, Config, RoleMap], None]] = {
    "glm_moe_dsa": _add_glm_dsa,
    "deepseek_v3": _add_deepseek,
    "deepseek_v32": _add_indexer,
    "glm4_moe": _add_glm4,
    "qwen3_moe": _add_qwen3,
    "minimax_m2": _add_minimax,
    "mixtral": _add_mixtral,
}
