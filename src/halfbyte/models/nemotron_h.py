"""Nemotron-3 (Nano, Super, Ultra; Nemotron-Cascade-2, Nemotron-3.5-Lightning): each layer has one block, a Mamba-2
mixer, attention without positions, or experts. Experts have no gate: down(relu(up(x)) squared); from Super on they work
in a narrower space than the model's (latent mixture of experts).

Sources: config.json of Nemotron-3-Nano-30B-A3B-NVFP4 and of Nemotron-3-Super-120B-A12B-NVFP4, and what their headers
hold, as a public loader pins it; Ultra's sizes and layers from Megatron-LM at 0732182 (examples/post_training/modelopt/
conf/nvidia) and notes on its config.json, which lists layers by words; totals of the published safetensors;
transformers 5.23 `models/nemotron_h`, which saves the published names and leaves `mtp.*` out; for the names inside
`mtp.*` vLLM at 01ca277, nemotron_h_mtp.py; for llama.cpp its conversion/nemotron.py at 003ebfc, its
src/models/nemotron-h.cpp as michaelw9999's fork has it at 64664e6, and the keys of a published file as its issue 20570
and lmstudio-bug-tracker's 1311 (`pixtral`) show them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture, Block, Mamba
from halfbyte.models.config_values import Config, per_layer, positive
from halfbyte.models.family import Described, Family, Known, Support, Wrapping
from halfbyte.models.llama_cpp import MLPS, Key, LlamaCpp, Written
from halfbyte.models.roles import Role
from halfbyte.models.splitting import THREE_DIGITS

LETTERS: dict[str, Block] = {"M": "state", "*": "attention", "E": "experts", "-": "mlp"}
"""Of `hybrid_override_pattern`."""
WORDS: dict[str, Block] = {
    "mamba": "state",
    "linear_attention": "state",
    "attention": "attention",
    "full_attention": "attention",
    "moe": "experts",
    "mlp": "mlp",
}
"""Of `layers_block_type`, as published and as transformers 5 saves them."""
STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""`mamba_ssm_cache_dtype`, by which both engines keep the state unless told otherwise (vLLM, models/config.py)."""


def read(config: Config) -> Architecture:
    for key in ("attention_bias", "mlp_bias", "use_bias"):
        if config.get(key):
            raise UnsupportedError(f"config.json: {key} is true, which is not described for nemotron_h")
    kinds = blocks_of(config, "hybrid_override_pattern", "layers_block_type")
    layers = reading.layer_count({"num_hidden_layers": len(kinds)})
    if config.get("num_hidden_layers") not in (None, layers):
        stated = str(config["num_hidden_layers"])[:40]
        raise CheckpointError(f"config.json: num_hidden_layers is {stated}, its pattern has {layers} layers")
    if "experts" not in kinds:
        raise UnsupportedError("config.json: no layer has experts: Nemotron-H without a mixture of experts is not read")
    if config.get("n_shared_experts") != 1:
        raise UnsupportedError(
            "config.json: n_shared_experts is not 1: transformers builds one of the stated width, vLLM as many at once"
        )
    unwindowed = {key: value for key, value in config.items() if key != "layer_types"}
    drafts = reading.announced_mtp(config, "num_nextn_predict_layers")
    if drafts:
        drafted(config)
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=drafts,
        mtp_announced=drafts,
        dense=frozenset(i for i in range(layers) if kinds[i] == "mlp"),
        indexers=frozenset(),
        **reading.sizes(unwindowed, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=positive(config, "moe_intermediate_size"),
        shared_width=positive(config, "moe_shared_expert_intermediate_size"),
        dense_width=positive(config, "intermediate_size"),
        router_bias=True,
        linear=frozenset(i for i in range(layers) if kinds[i] == "state"),
        blocks=kinds,
        mamba=mamba(config),
        gated_experts=False,
        latent=positive(config, "moe_latent_size", 0),
    )


def blocks_of(config: Config, pattern: str, listed: str) -> tuple[Block, ...]:
    """The block of each layer: a letter each, or a list of words. Raises CheckpointError."""
    value, known, key = config.get(pattern), LETTERS, pattern
    if value is None:
        value, known, key = config.get(listed), WORDS, listed
    if not isinstance(value, list | str) or not value:
        raise CheckpointError(f"config.json: has no {pattern} and no {listed}, one of which says what each layer is")
    return tuple(known[entry] for entry in per_layer({key: value}, key, tuple(known), len(value)))


def drafted(config: Config) -> tuple[Block, ...]:
    """The blocks of one prediction layer. Raises UnsupportedError for others than engines run."""
    kinds = blocks_of(config, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    if kinds != DRAFT:
        raise UnsupportedError(
            f"config.json: prediction layers of {', '.join(kinds)[:80]} are not described, attention then experts are"
        )
    return kinds


DRAFT: tuple[Block, ...] = ("attention", "experts")
"""A prediction layer is two of the blocks, each with its norm: in Super, Ultra and Lightning."""


def mamba(config: Config) -> Mamba:
    dtype = config.get("mamba_ssm_cache_dtype", "float32")
    if dtype not in STATE_BYTES:
        known = ", ".join(STATE_BYTES)
        raise CheckpointError(f"config.json: mamba_ssm_cache_dtype is {str(dtype)[:40]!r}, wanted one of {known}")
    return Mamba(
        heads=positive(config, "mamba_num_heads"),
        width=positive(config, "mamba_head_dim"),
        state=positive(config, "ssm_state_size"),
        groups=positive(config, "n_groups"),
        kernel=positive(config, "conv_kernel"),
        bias=bool(config.get("use_conv_bias", True)),
        state_bytes=STATE_BYTES[dtype],
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    for number in range(arch.mtp_announced):
        yield from mtp(arch, number)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    return block(arch, arch.blocks[number])


def block(arch: Architecture, kind: Block) -> Iterator[Described]:
    """The block's tensors, and the norm of what it is given."""
    yield Described("norm.weight", Role.NORM, (arch.hidden,))
    if kind == "state":
        yield from mixer(arch)
    elif kind == "attention":
        yield from renamed(blocks.gqa(arch))
    elif kind == "mlp":
        yield from blocks.swiglu(Role.DENSE_MLP, "mixer", arch.hidden, arch.dense_width, gated=False)
    else:
        yield from mixture(arch)


def renamed(tensors: Iterable[Described]) -> Iterator[Described]:
    for tensor in tensors:
        yield replace(tensor, name=tensor.name.replace("self_attn.", "mixer."))


def mixer(arch: Architecture) -> Iterator[Described]:
    """Mamba-2."""
    assert arch.mamba is not None
    parts, role = arch.mamba, Role.LINEAR_ATTENTION
    yield Described("mixer.in_proj.weight", role, (parts.projected, arch.hidden), "in_proj")
    yield Described("mixer.conv1d.weight", role, (parts.convolved, 1, parts.kernel), "conv1d")
    yield Described("mixer.conv1d.bias", role, (parts.convolved,), "conv1d", promised=parts.bias)
    for name in ("dt_bias", "A_log", "D"):
        yield Described(f"mixer.{name}", role, (parts.heads,))
    yield Described("mixer.norm.weight", role, (parts.inner,), "norm")
    yield Described("mixer.out_proj.weight", role, (arch.hidden, parts.inner), "out_proj")


def mixture(arch: Architecture) -> Iterator[Described]:
    yield from blocks.router(arch, ("mixer",), bias=("gate.e_score_correction_bias",))
    yield from blocks.experts(arch, ("mixer",))
    yield from blocks.swiglu(Role.SHARED_EXPERT, "mixer.shared_experts", arch.hidden, arch.shared_width, gated=False)
    for name, shape in (
        ("fc1_latent_proj", (arch.latent, arch.hidden)),
        ("fc2_latent_proj", (arch.hidden, arch.latent)),
    ):
        yield Described(f"mixer.{name}.weight", Role.LATENT, shape, name, promised=arch.latent > 0)


def mtp(arch: Architecture, number: int) -> Iterator[Described]:
    """One prediction layer: its blocks stand in `mtp.layers` one after another."""
    hidden, first = arch.hidden, f"mtp.layers.{len(DRAFT) * number}"
    last = f"mtp.layers.{len(DRAFT) * (number + 1) - 1}"
    place = arch.layers + number
    yield Described(f"{first}.eh_proj.weight", Role.MTP, (hidden, 2 * hidden), "eh_proj", layer=place, mtp=True)
    for name in (f"{first}.enorm", f"{first}.hnorm", f"{last}.final_layernorm"):
        yield Described(f"{name}.weight", Role.NORM, (hidden,), layer=place, mtp=True)
    for offset, kind in enumerate(DRAFT):
        prefix = f"mtp.layers.{len(DRAFT) * number + offset}."
        for tensor in block(arch, kind):
            also = tuple(prefix + name for name in tensor.also)
            yield replace(tensor, name=prefix + tensor.name, also=also, layer=place, mtp=True)


def usual(config: Config) -> Config:
    """Its attention has no positions; llama.cpp wants a rotary base all the same."""
    epsilon = config.get("layer_norm_epsilon", config.get("norm_eps"))
    return {"rope_theta": 10000.0, "rms_norm_eps": epsilon, **config}


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    """Which block a layer has is told by its key-value heads and its width: a state where it has neither."""
    assert arch.mamba is not None
    parts = arch.mamba
    if arch.dense:
        raise UnsupportedError(f"layer {min(arch.dense)} is dense: llama.cpp's nemotron_h_moe has experts in all MLPs")
    yield "feed_forward_length", [arch.expert_width if block == "experts" else 0 for block in arch.blocks]
    yield "head_count_kv", [arch.kv_heads if block == "attention" else 0 for block in arch.blocks]
    yield "vocab_size", arch.vocab
    yield "layer_norm_eps", config["rms_norm_eps"]
    yield "ssm_conv_kernel", parts.kernel
    yield "ssm_state_size", parts.state
    yield "ssm_group_count", parts.groups
    yield "ssm_inner_size", parts.inner
    yield "ssm_time_step_rank", parts.heads
    yield "key_length", arch.head_dim
    yield "value_length", arch.head_dim
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_feed_forward_length", arch.shared_width
    yield "expert_shared_count", 1
    yield "expert_weights_norm", bool(config.get("norm_topk_prob", True))
    yield "expert_weights_scale", config["routed_scaling_factor"]
    if arch.latent:
        yield "moe_latent_size", arch.latent


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    assert arch.mamba is not None
    parts = arch.mamba
    module, _, part = name.rpartition(".")
    own = f"blk.{number}.ssm"
    if part == "A_log":
        yield Written(f"{own}_a", "", change="minus exp", shape=(parts.heads, 1))
    elif part == "D":
        yield Written(f"{own}_d", "", shape=(parts.heads, 1))
    elif part == "dt_bias":
        yield Written(f"{own}_dt", ".bias")
    elif module.endswith(".conv1d"):
        shape = (parts.convolved, parts.kernel) if part == "weight" else ()
        yield Written(f"{own}_conv1d", f".{part}", shape=shape, widened=True)
    elif module.endswith(".mixer.norm"):
        yield Written(f"{own}_norm", shape=(parts.groups, parts.inner // parts.groups), widened=True)
    elif part == "e_score_correction_bias":
        yield Written(f"blk.{number}.exp_probs_b", ".bias")
    elif module.startswith("model.layers."):
        yield Written(f"backbone.{module.removeprefix('model.')}", f".{part}")


FAMILY = Family(
    model_type="nemotron_h",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    needs=("routed_scaling_factor",),
    engines={
        "vllm": Support(
            file="nemotron_h",
            since=(0, 12),
            since_known=Known("read", "vLLM's recipe of Nemotron-3-Nano-30B-A3B"),
            reasoning_parser="nemotron_v3",
            tool_parser="qwen3_coder",
            asks_router=False,
            router_known=Known(
                "run", "vLLM 0.26.0 on one H200; nemotron_h.py at 00b08dc: GateLinear without a quantization config"
            ),
        ),
        "sglang": Support(
            file="nemotron_h",
            reasoning_parser="nemotron_3",
            tool_parser="qwen3_coder",
            asks_router=False,
            router_known=Known("read", "SGLang at 02c6032, nemotron_h.py: the gate has quant_config=None"),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/nemotron_h")),
    },
    llama_cpp=LlamaCpp(
        "nemotron_h_moe",
        "NEMOTRON_H_MOE",
        keys,
        scaled=MLPS | {Role.ATTENTION, Role.LINEAR_ATTENTION},
        splitting={THREE_DIGITS: "pixtral"},
        written=written,
        usual=usual,
    ),
    wrapping=Wrapping(
        {
            "model.embed_tokens.": "backbone.embeddings.",
            "model.norm.": "backbone.norm_f.",
            "model.": "backbone.",
        },
        (),
    ),
    named_so_alone=True,
    packs={Role.LINEAR_ATTENTION: ("in_proj", "out_proj")},  # MambaMixer2 in both; NVIDIA's Nano has most of them so
)
