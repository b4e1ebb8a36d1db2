"""Gemma 4 with experts (26B-A4B): in every layer 128 experts beside an MLP that all tokens take; a window in five
layers of six, and in the sixth wider heads, fewer of them for keys, whose values are what k_proj gives.

The MLP is the shared expert: Google's model card counts "8 active / 128 total and 1 shared". Engines build it by
itself, never fused with the experts, so no entry of the exclusion list must contain `shared_expert`. Router, experts
and the norms of both branches stand in the layer itself; a layer's output is multiplied by `layer_scalar`.

The published experts are stacks, [E, 2 width, hidden] and [E, hidden, width]. ModelOpt 0.47 writes them one by one, as
`experts.N.gate_proj`, and both engines load that; other NVFP4 checkpoints (bg-digitalservices, RedHatAI) say
`moe.experts.N`, which is where both engines have them. NVIDIA's NVFP4 keeps attention and MLP in BF16 (so says the
card of kunhunjon's NVFP4, which does not).

Sources: config.json of gemma-4-26B-A4B-it as public loaders and their tests quote it; transformers 5.23
`models/gemma4`; the report of the headers at revision 4d7ae49 (1,013 tensors); vLLM at 001cabc and 01bae21, gemma4.py
and gemma4_mm.py; SGLang at 03826cd and 038b25e, gemma4_causal.py and gemma4_mm.py; for llama.cpp its
conversion/gemma.py at 061b8c5 and src/models/gemma4.cpp at 9af0434.
"""

from collections.abc import Iterator
from typing import Any

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Family, Known, Support, Wrapping
from halfbyte.models.llama_cpp import Key, LlamaCpp, Written
from halfbyte.models.roles import Role

WINDOW, GLOBAL_HEAD = 512, 512
"""transformers `Gemma4TextConfig`, where `sliding_window` and `global_head_dim` are left out."""
PATTERN = ("sliding_attention",) * 5 + ("full_attention",)
NOT_READ = {
    "hidden_size_per_layer_input": (256, "embeddings of each layer's own (E2B, E4B)"),
    "num_kv_shared_layers": (0, "layers that attend to another's keys (E2B, E4B)"),
}
"""Keys that must be 0, what transformers takes where they are left out, and what they are: no published checkpoint with
experts has them."""


def read(config: Config) -> Architecture:
    if not config.get("enable_moe_block"):
        raise UnsupportedError(
            "config.json: enable_moe_block is not true: Gemma 4 without experts (E2B, E4B, 31B) is not read, only "
            "mixture-of-experts models are (26B-A4B)"
        )
    for key, (unstated, what) in NOT_READ.items():
        if natural(config, key, unstated):
            stated = "left out" if config.get(key) is None else config[key]
            raise UnsupportedError(f"config.json: {key} is {stated}: {what} are not described beside experts")
    if config.get("attention_bias"):
        raise UnsupportedError("config.json: attention_bias is true, which is not described for gemma4")
    if config.get("use_bidirectional_attention") == "all":
        raise UnsupportedError('config.json: use_bidirectional_attention is "all": such a model writes no text')
    layers = reading.layer_count(config)
    kinds = config.get("layer_types") or [PATTERN[i % len(PATTERN)] for i in range(layers)]
    if isinstance(kinds, list) and len(kinds) >= layers:  # the last is a full one, whatever is said
        kinds = [*kinds[: layers - 1], "full_attention"]
    numbers = {"layer_types": kinds, "num_experts_per_tok": positive(config, FAMILY.top_k_key)}
    sizes = reading.sizes({"tie_word_embeddings": True} | config | numbers, layers, usual_window=WINDOW)
    near = {"head_dim": sizes["head_dim"], "num_key_value_heads": sizes["kv_heads"]}
    far = far_heads(config, near, [i for i in range(layers) if i not in sizes["sliding"]])
    width = positive(config, "intermediate_size")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(),
        indexers=frozenset(),
        **sizes | {"head_dim": far["head_dim"], "kv_heads": far["num_key_value_heads"]},
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=positive(config, "moe_intermediate_size"),
        shared_width=width,
        dense_width=width,
        qk_norm="head",
        sliding_kv_heads=near["num_key_value_heads"],
        sliding_head_dim=near["head_dim"],
        keys_as_values=frozenset(range(layers)) - sizes["sliding"] if config.get("attention_k_eq_v") else frozenset(),
    )


def far_heads(config: Config, near: dict[str, int], full: list[int]) -> dict[str, int]:
    """Width of a head and heads for keys in layers without a window, as published, or as transformers 5 saves them: in
    what differs by layer."""
    own: Any = config.get("per_layer_config")
    if own is None:
        keys = "num_global_key_value_heads" if config.get("attention_k_eq_v") else "num_key_value_heads"
        return {
            "head_dim": positive(config, "global_head_dim", GLOBAL_HEAD),
            "num_key_value_heads": positive(config, keys, near["num_key_value_heads"]),
        }
    if not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
        raise CheckpointError("config.json: per_layer_config is no table of settings by layer")
    different = {str(layer): one for layer, one in own.items()}
    first = different.get(str(full[0]), {})
    others = set(different) - set(map(str, full))
    if others or any(different.get(str(layer), {}) != first for layer in full) or set(first) - set(near):
        raise UnsupportedError(
            "config.json: per_layer_config says more than another head_dim and num_key_value_heads for all layers "
            "without a window, which is not described for gemma4"
        )
    return {key: positive(first, key, value) for key, value in near.items()}


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


NORMS = (
    *("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    *("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"),
)
"""Those with a number belong to a branch: 1 to the MLP's, 2 to the experts'."""


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    for name in NORMS:
        yield Described(f"{name}.weight", Role.NORM, (arch.hidden,))
    yield Described("layer_scalar", Role.NORM, (1,))
    yield from blocks.gqa(arch, number=number)
    yield from blocks.swiglu(Role.SHARED_EXPERT, "mlp", arch.hidden, arch.shared_width)
    yield Described("router.proj.weight", Role.ROUTER, (arch.experts, arch.hidden), "gate")
    yield Described("router.scale", Role.ROUTER, (arch.hidden,))
    yield Described("router.per_expert_scale", Role.ROUTER, (arch.experts,))
    yield from blocks.experts(arch, ("", "moe"))


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and projection, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "position_embedding_size" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    heads, head = positive(vision, "num_attention_heads"), positive(vision, "head_dim", 64)
    keys = positive(vision, "num_key_value_heads", heads)
    each = 2 * hidden * head * (heads + keys) + 3 * hidden * wide + 4 * hidden + 2 * head
    patches = hidden * (3 * positive(vision, "patch_size", 16) ** 2 + 2 * positive(vision, "position_embedding_size"))
    scales = 2 * hidden if vision.get("standardize") else 0
    return 2 * (positive(vision, "num_hidden_layers") * each + patches + scales + hidden * text_hidden)


ROPE: Config = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
"""transformers `Gemma4TextConfig`, where `rope_parameters` is left out."""
NOT_TURNED = 1e30
"""What the angle of a pair is divided by that layers without a window leave as it is."""


def rotations(config: Config) -> tuple[Config, Config]:
    """Of layers without a window, and with one. Raises UnsupportedError for others than Gemma 4's."""
    stated = config.get("rope_parameters") or ROPE
    far, near = (stated.get(kind) for kind in ROPE)
    if not isinstance(far, dict) or not isinstance(near, dict):
        raise UnsupportedError("config.json: rope_parameters does not tell layers with a window from those without")
    if far.get("rope_type") != "proportional" or far.get("factor", 1.0) != 1.0:
        raise UnsupportedError("config.json: rope_parameters: llama.cpp's gemma4 wants rope type 'proportional'")
    if near.get("rope_type", "default") != "default" or near.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError("config.json: rope_parameters: layers with a window have more than a rope_theta")
    return far, near


def usual(config: Config) -> Config:
    """The rotary embedding of layers without a window where others have their only one."""
    far, near = rotations(config)
    bases = {
        "rope_parameters": {"rope_theta": far.get("rope_theta", 1e6)},
        "swa_rope_theta": near.get("rope_theta", 1e4),
    }
    return {**config, **bases}


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    if not arch.sliding:
        raise UnsupportedError("config.json: layer_types: llama.cpp's gemma4 has layers with a window")
    layers = range(arch.layers)
    yield "head_count_kv", [arch.kv_heads_of(layer) for layer in layers]
    yield "sliding_window", arch.window
    yield "sliding_window_pattern", [layer in arch.sliding for layer in layers]
    for width, key in ((arch.head_dim, ""), (arch.sliding_head_dim, "_swa")):
        yield f"key_length{key}", width
        yield f"value_length{key}", width
        yield f"rope_dimension_count{key}", width
    yield "rope_freq_base_swa", float(config["swa_rope_theta"])
    yield "shared_kv_layers", 0
    yield "embedding_length_per_layer_input", 0
    yield "expert_feed_forward_length", arch.expert_width
    if config.get("final_logit_softcapping") is not None:
        yield "final_logit_softcapping", float(config["final_logit_softcapping"])


def made(config: Config, arch: Architecture) -> Iterator[tuple[str, list[float]]]:
    """Which pairs of a head layers without a window turn: the first share of them."""
    far, _ = rotations(config)
    pairs = arch.head_dim // 2
    turned = int(far.get("partial_rotary_factor", 1.0) * arch.head_dim // 2)
    yield "rope_freqs.weight", [1.0] * turned + [NOT_TURNED] * (pairs - turned)


def written(_: Architecture, name: str, number: int | None) -> Iterator[Written]:
    """A score of an expert is a scale of what it gives, which is where its NVFP4 scale is too."""
    if name.endswith(".layer_scalar"):
        yield Written(f"blk.{number}.layer_output_scale")
    elif name.endswith(".router.scale"):
        yield Written(f"blk.{number}.ffn_gate_inp", ".scale")
    elif name.endswith(".router.per_expert_scale"):
        yield Written(f"blk.{number}.ffn_down_exps", ".scale")


FAMILY = Family(
    model_type="gemma4",
    aliases=("gemma4_text",),
    read=read,
    tensors=tensors,
    experts_key="num_experts",
    top_k_key="top_k_experts",
    engines={
        "vllm": Support(
            file="gemma4",
            since=(0, 20, 2),
            since_known=Known("read", "vLLM's issue 42516; pull request 39406: 0.19 leaves scales of experts out"),
            reasoning_parser="gemma4",
            tool_parser="gemma4",
            asks_router=False,
            router_known=Known(
                "run", "vLLM 0.26.0 on one H200; 001cabc read, gemma4.py: GateLinear without a quantization config"
            ),
        ),
        "sglang": Support(
            file="gemma4_mm",
            asks_router=False,
            router_known=Known("read", "SGLang at 03826cd, gemma4_causal.py: the router has quant_config=None"),
        ),
        "transformers": Support(
            since=(5, 5), since_known=Known("read", "transformers_version of the published config.json")
        ),
    },
    wrapping=Wrapping(
        {"model.": "model.language_model."},
        ("model.vision_tower.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio."),
    ),
    vision_bytes=vision_bytes,
    experts_in="moe",
    llama_cpp=LlamaCpp(
        "gemma4",
        "GEMMA4",
        keys,
        scaled=frozenset({Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.ATTENTION}),
        vocabulary="characters",
        written=written,
        usual=usual,
        beside_towers=True,
        made=made,
        shown=frozenset(
            {
                "<|channel>",
                "<channel|>",
                "<|tool_call>",
                "<tool_call|>",
                "<|tool_response>",
                "<tool_response|>",
                '<|"|>',
            }
        ),
    ),
)
