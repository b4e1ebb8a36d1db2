"""MiMo-V2-Flash: five of six layers attend to a window of 128 tokens, with sinks and twice the key-value heads; values
narrower than keys; experts in every layer but the first, none shared.

The MTP layers are dense ones with a window, under `model.mtp.layers.`; config.json does not count them. Sources:
transformers 5.23 `models/mimo_v2_flash` (whose defaults are MiMo-V2-Flash's; `attention_sink_bias` is its `sinks`);
vLLM at 01ed47b, mimo_v2_flash.py, and at 037951a, mimo_v2_mtp.py; for llama.cpp its conversion/mimo.py at 051139f and
src/models/mimo2.cpp at 0e703ad, whose graph applies no scale.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, per_layer, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp, Written, routers_normalise
from halfbyte.models.roles import Role
from halfbyte.models.splitting import ONE_DIGIT

MTP_LAYERS = 3
"""As many are explained where they are found. How many are published was not read, so none is missed."""


def read(config: Config) -> Architecture:
    layers, heads = reading.layer_count(config), positive(config, "num_attention_heads")
    head_dim, value = positive(config, "head_dim"), positive(config, "v_head_dim")
    for key, same in (("swa_num_attention_heads", heads), ("swa_head_dim", head_dim), ("swa_v_head_dim", value)):
        if positive(config, key, same) != same:
            raise UnsupportedError(f"config.json: {key} is {config[key]}, which other layers have as {same}")
    if config.get("add_full_attention_sink_bias"):
        raise UnsupportedError("config.json: add_full_attention_sink_bias is true, which is not described")
    width, sliding = positive(config, "moe_intermediate_size"), sliding_layers(config, layers)
    window = {"layer_types": [f"{'sliding' if i in sliding else 'full'}_attention" for i in range(layers)]}
    keys = positive(config, "num_key_value_heads")
    announced = reading.announced_mtp(config, "num_nextn_predict_layers")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=announced,
        mtp_announced=MTP_LAYERS if config.get("num_nextn_predict_layers") is None else announced,
        dense=dense_layers(config, layers),
        indexers=frozenset(),
        **reading.sizes(config | window, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=reading.shared_width(config, width),
        dense_width=positive(config, "intermediate_size"),
        router_bias=True,
        mtp_dense=True,
        attention_bias=bool(config.get("attention_bias")),
        value_dim=value,
        sliding_kv_heads=positive(config, "swa_num_key_value_heads", 2 * keys),
        sinks=sliding if config.get("add_swa_attention_sink_bias", True) else frozenset(),
    )


def sliding_layers(config: Config, layers: int) -> frozenset[int]:
    """`layer_types` or the published `hybrid_layer_pattern` (1: a window); else all but the first and every sixth."""
    if config.get("layer_types") is not None:
        kinds = per_layer(config, "layer_types", ("full_attention", "sliding_attention"), layers)
        return frozenset(i for i in range(layers) if kinds[i] == "sliding_attention")
    pattern = reading.flags(config, "hybrid_layer_pattern", layers)
    if pattern is not None:
        return frozenset(i for i in range(layers) if pattern[i])
    return frozenset(i for i in range(layers) if i and (i + 1) % 6)


def dense_layers(config: Config, layers: int) -> frozenset[int]:
    """`mlp_layer_types` or the published list `moe_layer_freq` (0: dense); else the first."""
    listed = reading.listed_dense(config, layers)
    if listed is not None:
        return listed
    sparse = reading.flags(config, "moe_layer_freq", layers)
    return frozenset({0}) if sparse is None else frozenset(i for i in range(layers) if not sparse[i])


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    for number in range(arch.layers, arch.layers + arch.mtp_announced):
        for tensor in mtp(arch, number):
            name = f"model.mtp.layers.{number - arch.layers}.{tensor.name}"
            promised = tensor.promised and number < arch.layers + arch.mtp_layers
            yield replace(tensor, name=name, also=(), layer=number, mtp=True, promised=promised)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from attention(arch, number)
    if arch.is_moe(number):
        yield from blocks.router(arch, bias=("gate.e_score_correction_bias",))
        yield from blocks.experts(arch)
        if arch.shared_width:
            yield from blocks.shared_expert(arch)
    else:
        yield from blocks.dense_mlp(arch)


def attention(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.gqa(arch, number=number)
    if number in arch.sinks:
        sink = "self_attn.attention_sink_bias"
        yield Described(sink, Role.ATTENTION, (arch.heads,), "sinks", also=("self_attn.sinks",))


def mtp(arch: Architecture, number: int) -> Iterator[Described]:
    hidden, sinks = arch.hidden, arch.sinks | {number} if arch.sinks else arch.sinks
    yield Described("eh_proj.weight", Role.MTP, (hidden, 2 * hidden), "eh_proj")
    for name in ("enorm", "hnorm", "input_layernorm", "pre_mlp_layernorm", "final_layernorm"):
        yield Described(f"{name}.weight", Role.NORM, (hidden,))
    yield from attention(replace(arch, sliding=arch.sliding | {number}, sinks=sinks), number)
    yield from blocks.dense_mlp(arch)


def usual(config: Config) -> Config:
    """The rotary embedding of layers without a window; transformers 5 states both kinds of layers' in one place."""
    rope = config.get("rope_parameters")
    stated = {"rms_norm_eps": config.get("layernorm_epsilon", 1e-5), **config}
    if not isinstance(rope, dict) or "full_attention" not in rope:
        return stated
    window = rope.get("sliding_attention") or {}
    if any(window.get(key) != rope["full_attention"].get(key) for key in ("rope_type", "partial_rotary_factor")):
        raise UnsupportedError("config.json: rope_parameters differ between layers in more than rope_theta")
    return stated | {"rope_parameters": rope["full_attention"], "swa_rope_theta": window.get("rope_theta", 10000.0)}


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    routers_normalise(config)
    if arch.shared_width:
        raise UnsupportedError("config.json: n_shared_experts: llama.cpp's mimo2 has no shared experts")
    if config.get("routed_scaling_factor") not in (None, 1.0):
        raise UnsupportedError("config.json: routed_scaling_factor: llama.cpp's mimo2 has none")
    rotary = int(arch.head_dim * reading.rope_parameters(config).get("partial_rotary_factor", 0.334))
    if rotary % 2:
        raise UnsupportedError(f"config.json: partial_rotary_factor turns {rotary} numbers of a head, wanted pairs")
    layers = range(arch.layers)
    yield "head_count_kv", [arch.kv_heads_of(layer) for layer in layers]
    yield "sliding_window", attended(config, arch)
    yield "sliding_window_pattern", [layer in arch.sliding for layer in layers]
    yield "rope_freq_base_swa", float(config.get("swa_rope_theta", 10000.0))
    yield "value_length", arch.value_width_of(0)
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_gating_func", "sigmoid"
    yield "rope_dimension_count", rotary
    if config.get("attention_value_scale") is not None:
        yield "attn_value_scale", float(config["attention_value_scale"])


def attended(config: Config, arch: Architecture) -> int:
    """Tokens that a window reaches over, the query's among them: `sliding_window_size` counts those before it, by
    transformers 5.23 (which names SGLang's code). llama.cpp's converter takes it for all, one fewer."""
    if config.get("sliding_window_size") is None:
        return arch.window
    return positive(config, "sliding_window_size") + 1


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    if name.endswith(("attention_sink_bias", "sinks")):
        yield Written(f"blk.{number}.attn_sinks")


FAMILY = Family(
    model_type="mimo_v2_flash",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    engines={
        "vllm": Support(
            file="mimo_v2_flash",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; mimo_v2_flash.py: the router is a plain torch linear"),
        ),
        "sglang": Support(
            file="mimo_v2_flash",
            asks_router=False,
            router_known=Known("read", "SGLang at 0a41b3b, mimo_v2_flash.py: the router is a plain parameter"),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/mimo_v2_flash")),
    },
    llama_cpp=LlamaCpp(
        "mimo2",
        "MIMO2",
        keys,
        splitting={ONE_DIGIT: "qwen2"},
        written=written,
        usual=usual,
    ),
)
