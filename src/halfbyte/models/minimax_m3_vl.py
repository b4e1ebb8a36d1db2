"""MiniMax-M3: grouped queries that attend to selected blocks of keys in all but the first layers, clamped experts with
a shared one, beside a vision tower.

Sources: transformers 5.23 `models/minimax_m3_vl` (whose defaults are MiniMax-M3's) and its conversion mapping, which
has the published names; SGLang at 01b5f57, minimax_m3.py; the tensor list of MiniMax-M3, all of which is below. It has
no prediction layers, though config.json says 1; others' (`mtp.`), which transformers passes over, are not described.
For llama.cpp its conversion/minimax.py at 051139f and src/models/minimax-m3.cpp at 0152226.
"""

from collections.abc import Iterator

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture, BlockSelection
from halfbyte.models.config_values import Config, per_layer, positive
from halfbyte.models.family import Described, Family, Known, Support, Wrapping
from halfbyte.models.llama_cpp import Change, Key, LlamaCpp, Written, leading_dense
from halfbyte.models.roles import Role
from halfbyte.models.splitting import CAMEL

_KINDS = ("full_attention", "minimax_m3_sparse")


def read(config: Config) -> Architecture:
    layers, width = reading.layer_count(config), positive(config, "intermediate_size")
    dense = reading.listed_dense(config, layers)
    if dense is None:
        sparse = reading.flags(config, "moe_layer_freq", layers)
        dense = frozenset() if sparse is None else frozenset(i for i in range(layers) if not sparse[i])
    stated = {key: value for key, value in config.items() if key != "layer_types"}
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=dense,
        indexers=frozenset(),
        **reading.sizes(stated, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=positive(config, "shared_intermediate_size"),
        dense_width=positive(config, "dense_intermediate_size"),
        qk_norm="per-head",
        router_bias=True,
        selection=selection(config, layers),
    )


def selection(config: Config, layers: int) -> BlockSelection | None:
    """By `layer_types`, or as published by a list in `sparse_attention_config`, where the sizes may stand too."""
    found = config.get("sparse_attention_config")
    nested: Config = found if isinstance(found, dict) else {}
    if config.get("layer_types") is not None:
        kinds = per_layer(config, "layer_types", _KINDS, layers)
        chosen = frozenset(i for i in range(layers) if kinds[i] == "minimax_m3_sparse")
    else:
        numbers = reading.flags(nested, "sparse_attention_freq", layers) or [0] * layers
        chosen = frozenset(i for i in range(layers) if numbers[i])
    if not chosen:
        return None
    names = {
        "index_n_heads": "sparse_num_index_heads",
        "index_head_dim": "sparse_index_dim",
        "index_block_size": "sparse_block_size",
        "index_topk_blocks": "sparse_topk_blocks",
    }
    sizes = config | {flat: nested[key] for flat, key in names.items() if key in nested}
    heads, width, block, top_k = (positive(sizes, key) for key in names)
    return BlockSelection(heads, width, block, top_k, chosen)


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    if arch.selection is not None and number in arch.selection.layers:
        yield from indexer(arch, arch.selection)
    if not arch.is_moe(number):
        yield from blocks.dense_mlp(arch)
        return
    moe = ("block_sparse_moe",)
    yield from blocks.router(arch, moe, bias=("e_score_correction_bias",))
    yield from blocks.experts(arch, moe, ("w1", "w3", "w2"))
    yield from blocks.swiglu(Role.SHARED_EXPERT, "block_sparse_moe.shared_experts", arch.hidden, arch.shared_width)


def indexer(arch: Architecture, parts: BlockSelection) -> Iterator[Described]:
    for name, shape in (
        ("q_proj", (parts.heads * parts.width, arch.hidden)),
        ("k_proj", (parts.width, arch.hidden)),
        ("q_norm", (parts.width,)),
        ("k_norm", (parts.width,)),
    ):
        yield Described(f"self_attn.index_{name}.weight", Role.INDEXER, shape, f"index_{name}")


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower, projector and merger, by their matrices, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "hidden_size" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    projected = positive(config, "projector_hidden_size", 6144)
    merged = text_hidden * positive(vision, "spatial_merge_size", 2) ** 2
    projector = projected * (hidden + merged + 2 * text_hidden)
    return 2 * (positive(vision, "num_hidden_layers") * (4 * hidden * hidden + 2 * hidden * wide) + projector)


LIMIT, ALPHA = 7.0, 1.702
"""What llama.cpp clamps gate and up at, and its factor inside the sigmoid."""


def usual(config: Config) -> Config:
    """GGUF's width of an MLP is the dense layers'."""
    return {**config, "intermediate_size": positive(config, "dense_intermediate_size")}


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    dense, parts = leading_dense(arch), arch.selection
    if parts is None or parts.layers != frozenset(range(dense, arch.layers)) or parts.heads != arch.kv_heads:
        raise UnsupportedError("llama.cpp's minimax-m3 selects blocks in the layers with experts, for each key head")
    for key, wanted in (("swiglu_limit", LIMIT), ("swiglu_alpha", ALPHA)):
        if config.get(key, wanted) != wanted:
            raise UnsupportedError(f"config.json: {key} is {config[key]}, llama.cpp takes {wanted}")
    if arch.shared_width % arch.expert_width:
        raise UnsupportedError("config.json: shared_intermediate_size is no multiple of the experts' width")
    nested = config.get("sparse_attention_config") or {}
    yield "expert_feed_forward_length", arch.expert_width
    yield "rope_dimension_count", reading.rotary(config, arch.head_dim)
    yield "expert_shared_count", arch.shared_width // arch.expert_width
    yield "expert_weights_scale", config["routed_scaling_factor"]
    yield "expert_weights_norm", True
    yield "expert_gating_func", "sigmoid"
    yield "leading_dense_block_count", dense
    yield "indexer_head_count", parts.heads
    yield "indexer_key_length", parts.width
    yield "indexer_top_k", parts.top_k
    yield "indexer_block_size", parts.block
    yield "indexer_local_blocks", nested.get("sparse_local_block", config.get("index_local_blocks", 1))


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    """Norms come with their 1; the selection's projections in float32, as the converter keeps them."""
    module, _, part = name.rpartition(".")
    last = module.rpartition(".")[2]
    change: Change = "one more" if last.endswith("norm") else ""
    if last.startswith("index_"):
        yield Written(f"blk.{number}.indexer.{last.removeprefix('index_')}", change=change, widened=True)
    elif last in ("q_norm", "k_norm"):
        yield Written(f"blk.{number}.attn_{last}", change=change)
    elif part == "weight":
        yield Written(module.replace(".block_sparse_moe", ".mlp"), change=change)


FAMILY = Family(
    model_type="minimax_m3_vl",
    aliases=("minimax_m3_vl_text", "minimax_m3"),
    computed_as="minimax_m3_vl_text",
    read=read,
    tensors=tensors,
    experts_key="num_local_experts",
    needs=("routed_scaling_factor",),
    llama_cpp=LlamaCpp(
        "minimax-m3",
        "ERNIE4_5_MOE",  # gguf 0.19 lacks minimax-m3; these are its tensors' names, but for those in `written`
        keys,
        scaled=frozenset({Role.ATTENTION}),
        splitting={CAMEL: "minimax-m2"},
        written=written,
        usual=usual,
        beside_towers=True,
    ),
    engines={
        "sglang": Support(
            file="minimax_m3",
            asks_router=False,
            router_known=Known("read", "SGLang's minimax_m3.py: the router is built with quant_config=None"),
        ),
        "transformers": Support(since=(5, 12), since_known=Known("read", "5.23.0, models/minimax_m3_vl")),
    },
    vision_bytes=vision_bytes,
    only_wrapped=True,
    wrapping=Wrapping(
        {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."},
        ("vision_tower.", "multi_modal_projector.", "patch_merge_mlp."),
    ),
)
