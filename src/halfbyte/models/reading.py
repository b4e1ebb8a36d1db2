"""Parts of a config.json that several families spell alike, read once each. Families put them together in `read`."""

from typing import Any

from halfbyte.errors import CheckpointError
from halfbyte.models.architecture import Indexer, Mla
from halfbyte.models.config_values import Config, count, natural, per_layer, positive
from halfbyte.models.windows import windows

MOST_LAYERS = 4096


def layer_count(config: Config) -> int:
    """Layers of the decoder. Bounded before anything is made for each of them."""
    layers = positive(config, "num_hidden_layers")
    if layers > MOST_LAYERS:
        raise CheckpointError(f"config.json: num_hidden_layers is {layers}, wanted at most {MOST_LAYERS}")
    return layers


def expert_count(config: Config, key: str) -> int:
    """Routed experts of a layer, under the published key or what transformers 5 calls it where it saved the config."""
    saved = "num_local_experts"
    return count(config, saved if config.get(key) is None and config.get(saved) is not None else key)


def announced_mtp(config: Config, *keys: str) -> int:
    """Layers beyond the last that the config announces under the first of the keys that it has."""
    for key in keys:
        if config.get(key) is not None:
            return count(config, key) if config[key] else 0
    return 0


def sizes(
    config: Config, layers: int, unstated: tuple[str, ...] = ("full_attention",), usual_window: int | None = None
) -> dict[str, Any]:
    """What every family has under the same keys, as arguments of `Architecture`; the last two of `windows`."""
    sliding, window = windows(config, layers, unstated, usual_window)
    hidden, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    return {
        "hidden": hidden,
        "vocab": positive(config, "vocab_size"),
        "heads": heads,
        "kv_heads": positive(config, "num_key_value_heads"),
        "head_dim": positive(config, "head_dim", max(hidden // heads, 1)),
        "max_context": positive(config, "max_position_embeddings"),
        "top_k": positive(config, "num_experts_per_tok"),
        "tied_embeddings": bool(config.get("tie_word_embeddings")),
        "sliding": sliding,
        "window": window,
    }


def mla(config: Config) -> Mla:
    """Ranks and widths of latent attention. `q_lora_rank` null: queries are not compressed (Moonlight)."""
    direct = "q_lora_rank" in config and config["q_lora_rank"] is None
    return Mla(
        q_rank=0 if direct else positive(config, "q_lora_rank"),
        kv_rank=positive(config, "kv_lora_rank"),
        rope=positive(config, "qk_rope_head_dim"),
        nope=positive(config, "qk_nope_head_dim"),
        value=positive(config, "v_head_dim"),
    )


def indexer(config: Config) -> Indexer:
    return Indexer(*(positive(config, key) for key in ("index_n_heads", "index_head_dim", "index_topk")))


def shared_width(config: Config, expert_width: int) -> int:
    """All shared experts of a layer together."""
    return positive(config, "n_shared_experts", 0) * expert_width


def rope_parameters(config: Config) -> Config:
    """The rope settings in one dictionary: newer configs nest them in `rope_parameters`, older ones spread them."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        if rope.get(key) is None and config.get(key) is not None:
            rope[key] = config[key]
    if "rope_type" not in rope and "type" in rope:
        rope["rope_type"] = rope["type"]
    return rope


def rotary(config: Config, head_dim: int) -> int:
    """Numbers of a head that the rotary embedding turns: `rotary_dim`, or the stated share."""
    if config.get("rotary_dim") is not None:
        return positive(config, "rotary_dim")
    return int(head_dim * rope_parameters(config).get("partial_rotary_factor", 1.0))


def flags(config: Config, key: str, layers: int) -> list[int] | None:
    """A list of 0 and 1 with an entry for each decoder layer, None where it is not stated."""
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) < layers or any(entry not in (0, 1) for entry in value[:layers]):
        raise CheckpointError(f"config.json: {key} is no list of 0 and 1 for each of {layers} layers")
    return value


def listed_dense(config: Config, layers: int) -> frozenset[int] | None:
    """Decoder layers with an ordinary MLP, by `mlp_layer_types`; None without it."""
    if config.get("mlp_layer_types") is None:
        return None
    types = per_layer(config, "mlp_layer_types", ("dense", "sparse"), layers)
    return frozenset(i for i in range(layers) if types[i] == "dense")


def leading_dense(config: Config, layers: int) -> frozenset[int]:
    """Decoder layers with an ordinary MLP, by `mlp_layer_types` or DeepSeek's two numbers."""
    listed = listed_dense(config, layers)
    if listed is not None:
        return listed
    first, every = natural(config, "first_k_dense_replace", 0), max(natural(config, "moe_layer_freq", 1), 1)
    return frozenset(i for i in range(layers) if i < first or i % every)


def indexer_layers(config: Config, layers: int) -> frozenset[int]:
    """Decoder layers that carry indexer weights. With IndexShare the others reuse the last selection.

    `indexer_types` (or `index_topk_pattern`) says so outright; else layer i is full when
    max(i - offset + 1, 0) % freq == 0 (transformers `GlmMoeDsaConfig`, vLLM and SGLang alike; the default offset
    is 2); without either, every layer is.
    """
    for key in ("indexer_types", "index_topk_pattern"):
        if config.get(key) is not None:
            types = per_layer(config, key, ("full", "shared", "F", "S"), layers)
            return frozenset(i for i in range(layers) if types[i] in ("full", "F"))
    frequency = max(natural(config, "index_topk_freq", 1), 1)
    offset = natural(config, "index_skip_topk_offset", 2)
    return frozenset(i for i in range(layers) if max(i - offset + 1, 0) % frequency == 0)
