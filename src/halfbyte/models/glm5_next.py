"""GLM-5.3-Flash: delta attention (KDA) in three of four layers, latent attention without positions and with an indexer
over pools of keys in the fourth, four residual streams, beside a vision tower.

What stands inside the MTP layer is known in part only, so its tensors are explained and not missed. Sources:
transformers 5.23 `models/glm5_next` (whose defaults are GLM-5.3-Flash's) and its conversion mapping; SGLang at 0096f82,
glm5_next.py, and at 16e1767, configs/glm5_next.py.
"""

from collections.abc import Iterator

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, deepseek_v3, reading
from halfbyte.models.architecture import Architecture, LinearAttention, Mla
from halfbyte.models.config_values import Config, natural, per_layer, positive
from halfbyte.models.family import Described, Family, Known, Support, Wrapping
from halfbyte.models.glm_answers import GlmFormat
from halfbyte.models.roles import Role

_KINDS = ("linear_attention", "indexed_attention", "full_attention")


def read(config: Config) -> Architecture:
    if config.get("attention_bias"):
        raise UnsupportedError("config.json: attention_bias is true, which is not described for glm5_next")
    layers, width = reading.layer_count(config), positive(config, "moe_intermediate_size")
    linear, heads = linear_layers(config, layers), positive(config, "num_attention_heads")
    stated = {key: value for key, value in config.items() if key != "layer_types"}
    dense = reading.listed_dense(config, layers)
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=reading.announced_mtp(config, "num_nextn_predict_layers"),
        dense=frozenset(range(min(natural(config, "first_k_dense_replace", 3), layers))) if dense is None else dense,
        indexers=indexers(config, layers, linear),
        **reading.sizes(stated | {"num_key_value_heads": heads, "head_dim": None}, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=reading.shared_width(config, width),
        dense_width=positive(config, "intermediate_size"),
        mla=Mla(
            q_rank=positive(config, "q_lora_rank"),
            kv_rank=positive(config, "kv_lora_rank"),
            rope=natural(config, "qk_rope_head_dim", 0),
            nope=positive(config, "qk_nope_head_dim"),
            value=positive(config, "v_head_dim"),
        ),
        indexer=reading.indexer(config),
        router_bias=True,
        linear=linear,
        linear_attention=delta_attention(config),
        streams=positive(config, "hc_mult"),
        index_pool=positive(config, "index_kpool"),
    )


def linear_layers(config: Config, layers: int) -> frozenset[int]:
    """`layer_types` says it outright; else every fourth layer is none."""
    if config.get("layer_types") is None:
        return frozenset(i for i in range(layers) if i % 4 != 3)
    kinds = per_layer(config, "layer_types", _KINDS, layers)
    return frozenset(i for i in range(layers) if kinds[i] == "linear_attention")


def indexers(config: Config, layers: int, linear: frozenset[int]) -> frozenset[int]:
    """Layers that select keys: all with latent attention, as a selection does not get past a linear layer.

    Raises UnsupportedError for one that would share an earlier layer's.
    """
    attending = frozenset(range(layers)) - linear
    shared = attending - reading.indexer_layers(config, layers)
    if shared:
        raise UnsupportedError(
            f"config.json: layer {min(shared)} shares an earlier selection, which is not described for glm5_next"
        )
    return attending


def delta_attention(config: Config) -> LinearAttention:
    """Under keys of their own, or together in `linear_attn_config`."""
    stated = config.get("linear_attn_config")
    together = stated if isinstance(stated, dict) else {}
    parts = config | {
        own: together[key]
        for own, key in (
            ("linear_num_heads", "num_heads"),
            ("linear_head_dim", "head_dim"),
            ("linear_conv_kernel_dim", "short_conv_kernel_size"),
        )
        if key in together
    }
    heads, width = positive(parts, "linear_num_heads"), positive(parts, "linear_head_dim")
    return LinearAttention(heads, heads, width, width, positive(parts, "linear_conv_kernel_dim"))


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.hyper_connections(arch)
    if number in arch.linear:
        yield from kimi_delta_attention(arch)
    else:
        yield from blocks.mla(arch)
        yield from pooled_indexer(arch)
    yield from deepseek_v3.mlp(arch, number)
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


def kimi_delta_attention(arch: Architecture) -> Iterator[Described]:
    """Kimi's delta attention: a decay for each channel of a key, made by two linears, as is the output's gate."""
    assert arch.linear_attention is not None
    parts, hidden = arch.linear_attention, arch.hidden
    wide, narrow, heads = parts.keys, parts.key_width, parts.key_heads

    def tensor(projection: str, *shape: int, dtype: str = "bf16") -> Described:
        return Described(f"self_attn.{projection}.weight", Role.LINEAR_ATTENTION, shape, projection, dtype)

    for name in ("q", "k", "v"):
        yield tensor(f"{name}_proj", wide, hidden)
        yield tensor(f"{name}_conv1d", wide, 1, parts.kernel, dtype="f32")
    yield tensor("b_proj", heads, hidden)
    for name in ("f", "g"):
        yield tensor(f"{name}_a_proj", narrow, hidden)
        yield tensor(f"{name}_b_proj", wide, narrow)
    yield Described("self_attn.dt_bias", Role.LINEAR_ATTENTION, (wide,), dtype="f32")
    yield Described("self_attn.A_log", Role.LINEAR_ATTENTION, (heads,), dtype="f32")
    yield tensor("o_norm", narrow)
    yield tensor("o_proj", hidden, wide)


def pooled_indexer(arch: Architecture) -> Iterator[Described]:
    """DeepSeek-V3.2's indexer, and how it makes one key of a pool of them."""
    assert arch.indexer is not None
    yield from blocks.indexer(arch)
    width = arch.indexer.width
    for part, shape in (("ape", (arch.index_pool, width)), ("gate", (width, arch.hidden))):
        yield Described(f"self_attn.indexer.index_kpool_compress_{part}", Role.INDEXER, shape)


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and merger, by their matrices, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "depth" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    out, merged = positive(vision, "out_hidden_size"), positive(vision, "projection_intermediate_size", 10240)
    patches = positive(vision, "spatial_merge_size", 2) ** 2
    merger = out * (out + 3 * merged + patches * hidden)
    return 2 * (positive(vision, "depth") * (4 * hidden * hidden + 3 * hidden * wide) + merger)


FAMILY = Family(
    model_type="glm5_next",
    aliases=("glm5_next_text",),
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    needs=("routed_scaling_factor", "norm_topk_prob"),
    unwritten="its architecture there is glm5-next; "
    "how delta attention, residual streams and pooled indexer are written is not read",
    engines={
        "sglang": Support(
            file="glm5_next",
            asks_router=False,
            router_known=Known("read", "SGLang at 0096f82, glm5_next.py: its MoE is deepseek_v2.py's"),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/glm5_next")),
    },
    answers=GlmFormat,
    vision_bytes=vision_bytes,
    only_wrapped=True,
    wrapping=Wrapping({"model.": "model.language_model."}, ("model.visual.",)),
)
