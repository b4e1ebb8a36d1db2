"""Qwen3-Next (80B-A3B): linear attention (gated delta net) in three of four layers, gated attention in the fourth, many
small experts and a shared one with a gate.

Sources: config.json of Qwen3-Next-80B-A3B-Instruct; transformers 5.23 `models/qwen3_next` (which leaves `mtp.*` out);
for the MTP layer's names vLLM 0.26.0, qwen3_next_mtp.py; for llama.cpp its conversion/qwen.py at 03173d5 and
src/models/qwen3next.cpp at 02ebd8f.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, qwen3_moe
from halfbyte.models.architecture import Architecture, LinearAttention
from halfbyte.models.config_values import Config, natural, per_layer, positive
from halfbyte.models.family import Described, Known, Support
from halfbyte.models.llama_cpp import MLPS, Key, LlamaCpp, Written, routers_normalise
from halfbyte.models.reading import rope_parameters
from halfbyte.models.roles import Role
from halfbyte.models.splitting import ONE_DIGIT

_KINDS = ("linear_attention", "full_attention")


def read(config: Config) -> Architecture:
    arch = qwen3_moe.read({key: value for key, value in config.items() if key != "layer_types"})
    return replace(
        arch,
        shared_width=positive(config, "shared_expert_intermediate_size"),
        linear=linear_layers(config, arch.layers),
        linear_attention=LinearAttention(
            key_heads=positive(config, "linear_num_key_heads"),
            value_heads=positive(config, "linear_num_value_heads"),
            key_width=positive(config, "linear_key_head_dim"),
            value_width=positive(config, "linear_value_head_dim"),
            kernel=positive(config, "linear_conv_kernel_dim"),
        ),
        gated_attention=True,
        gated_shared=True,
        mtp_layers=1,
        mtp_announced=1,
    )


def linear_layers(config: Config, layers: int) -> frozenset[int]:
    """`layer_types` says it outright; else every `full_attention_interval`-th layer attends in full."""
    if config.get("layer_types") is not None:
        kinds = per_layer(config, "layer_types", _KINDS, layers)
        return frozenset(i for i in range(layers) if kinds[i] == "linear_attention")
    every = max(natural(config, "full_attention_interval", 4), 1)
    return frozenset(i for i in range(layers) if (i + 1) % every)


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    yield from mtp(arch)


def layer(arch: Architecture, number: int, joined: bool = True) -> Iterator[Described]:
    yield from blocks.norms(arch)
    if number in arch.linear:
        yield from blocks.gated_delta_net(arch, joined)
    else:
        yield from blocks.gqa(arch)
    if arch.is_moe(number):
        yield from blocks.router(arch)
        yield from blocks.experts(arch)
        yield from blocks.gated_shared_expert(arch)
    else:
        yield from blocks.dense_mlp(arch)


def mtp(arch: Architecture) -> Iterator[Described]:
    """The MTP layer stands under `mtp.`: a decoder layer with full attention, and what joins the next token to it."""
    hidden, number = arch.hidden, arch.layers
    if not arch.mtp_announced:
        return
    yield Described("mtp.fc.weight", Role.MTP, (hidden, 2 * hidden), "fc", layer=number, mtp=True)
    for name in ("pre_fc_norm_hidden", "pre_fc_norm_embedding", "norm"):
        yield Described(f"mtp.{name}.weight", Role.NORM, (hidden,), layer=number, mtp=True)
    for tensor in layer(arch, number):
        also = tuple(f"mtp.layers.0.{name}" for name in tensor.also)
        yield replace(tensor, name=f"mtp.layers.0.{tensor.name}", also=also, layer=number, mtp=True)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    assert arch.linear_attention is not None
    parts, every = arch.linear_attention, attention_interval(arch)
    if parts.key_width != parts.value_width:
        raise UnsupportedError(
            f"linear attention with keys {parts.key_width} wide and values {parts.value_width}: llama.cpp has one width"
        )
    routers_normalise(config)
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_feed_forward_length", arch.shared_width
    yield "ssm_conv_kernel", parts.kernel
    yield "ssm_state_size", parts.key_width
    yield "ssm_group_count", parts.key_heads
    yield "ssm_time_step_rank", parts.value_heads
    yield "ssm_inner_size", parts.values
    yield "full_attention_interval", every
    yield "rope_dimension_count", int(arch.head_dim * rope_parameters(config).get("partial_rotary_factor", 0.25))


def attention_interval(arch: Architecture) -> int:
    """Every which layer attends in full. Raises UnsupportedError where that is not one number."""
    every = next((i + 1 for i in range(arch.layers) if i not in arch.linear), arch.layers + 1)
    if arch.linear != frozenset(i for i in range(arch.layers) if (i + 1) % every):
        raise UnsupportedError("config.json: layer_types: llama.cpp wants full attention in every n-th layer")
    return every


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    """The delta net's decay is kept as the recurrence uses it, norms with their 1; queries, keys and values of all
    heads stand one after another, the gate `z` by itself."""
    module, _, part = name.rpartition(".")
    if part == "A_log":
        yield Written(f"blk.{number}.ssm_a", "", change="minus exp")
    elif part == "dt_bias":
        yield Written(f"blk.{number}.ssm_dt", ".bias")
    elif module.endswith(".conv1d"):
        assert arch.linear_attention is not None
        yield Written(module, widened=True, shape=(arch.linear_attention.convolved, arch.linear_attention.kernel))
    elif module.endswith("norm") and not module.endswith("linear_attn.norm"):
        yield Written(module, change="one more")
    elif module.endswith(".in_proj_qkvz"):
        queries, keys, values, gates = by_kind(arch)
        yield Written(f"blk.{number}.attn_qkv", rows=queries + keys + values)
        yield Written(f"blk.{number}.attn_gate", rows=gates)


def by_kind(arch: Architecture) -> tuple[tuple[range, ...], ...]:
    """Rows of `in_proj_qkvz`: for every key head its query, key, values and gates."""
    assert arch.linear_attention is not None
    parts = arch.linear_attention
    share = parts.values // parts.key_heads
    widths = (parts.key_width, parts.key_width, share, share)
    starts = [sum(widths[:kind]) for kind in range(len(widths))]
    return tuple(
        tuple(range(head * sum(widths) + start, head * sum(widths) + start + width) for head in range(parts.key_heads))
        for start, width in zip(starts, widths, strict=True)
    )


_ROUTER = "qwen3_next.py: the router and the shared expert's gate are built with quant_config=None"

FAMILY = qwen3_moe.FAMILY.but(
    model_type="qwen3_next",
    read=read,
    tensors=tensors,
    engines={
        "vllm": Support(
            file="qwen3_next", asks_router=False, router_known=Known("run", f"vLLM 0.26.0 on one H100; {_ROUTER}")
        ),
        "sglang": Support(
            file="qwen3_next",
            asks_router=False,
            router_known=Known(
                "read",
                "SGLang at 0201bc8, qwen3_next.py: its MoE block is qwen2_moe.py's, router with quant_config=None",
            ),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "5.23.0, models/qwen3_next")),
    },
    llama_cpp=LlamaCpp(
        "qwen3next",
        "QWEN3NEXT",
        keys,
        scaled=MLPS | {Role.ATTENTION},
        splitting={ONE_DIGIT: "qwen2"},
        written=written,
    ),
)
