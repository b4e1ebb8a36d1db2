"""The numbers of a model's `config.json` that memory and speed depend on, under one set of names.

Families that Halfbyte reads tensor by tensor get their layer kinds (dense, indexer, MTP) from `RoleMap`, the one place
that knows them. `kimi_k2` is DeepSeek-V3 under another name, `kimi_k25` wraps it beside a vision tower, and `gpt_oss`
and `llama4` are known here on paper only: enough to plan for, not to quantize.
"""

from dataclasses import dataclass, replace
from typing import Any

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.config_values import positive
from halfbyte.models.families import FAMILIES
from halfbyte.models.roles import RoleMap
from halfbyte.models.vision import vision_bytes
from halfbyte.models.windows import windows

ALIASES = {"kimi_k2": "deepseek_v3", "deepseek_v3_2": "deepseek_v32", "llama4_text": "llama4"}
PAPER_ONLY = ("gpt_oss", "llama4")
MOST_LAYERS = 4096


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: ranks and per-head widths, in numbers."""

    q_rank: int
    kv_rank: int
    rope: int
    nope: int
    value: int

    @property
    def latent(self) -> int:
        """Numbers cached per token and layer: the compressed KV and the rotary key."""
        return self.kv_rank + self.rope


@dataclass(frozen=True)
class Indexer:
    """Sparse-attention indexer (DSA): heads, width of a head, tokens selected."""

    heads: int
    width: int
    top_k: int


@dataclass(frozen=True)
class Architecture:
    """One model. Layer numbers count from 0; MTP layers follow the last decoder layer.

    experts, top_k: routed experts per MoE layer and experts a token visits. shared_width: total width of the shared
    experts, 0 for none. vision_bytes: a BF16 vision tower beside the text model. max_context: tokens. sliding: layers
    that attend to the last `window` tokens only.
    """

    model_type: str
    layers: int
    mtp_layers: int
    dense: frozenset[int]
    indexers: frozenset[int]
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    top_k: int
    expert_width: int
    shared_width: int
    dense_width: int
    max_context: int
    mla: Mla | None = None
    indexer: Indexer | None = None
    attention_bias: bool = False
    qk_norm: str = ""
    router_bias: bool = False
    expert_bias: bool = False
    tied_embeddings: bool = False
    own_mtp_head: bool = False
    vision_bytes: int = 0
    sliding: frozenset[int] = frozenset()
    window: int = 0

    @property
    def moe_layers(self) -> int:
        return self.layers - len(self.dense)

    def is_moe(self, layer: int) -> bool:
        return layer not in self.dense

    def has_indexer(self, layer: int) -> bool:
        """Whether a layer carries indexer weights and keys; an MTP layer of a DSA model always does."""
        return self.indexer is not None and (layer >= self.layers or layer in self.indexers)


def architecture(config: dict[str, Any]) -> Architecture:
    """Read a config.json. Raises UnsupportedError (family), CheckpointError (missing or senseless key)."""
    text = text_config(config)
    found = _paper_only(text) if text["model_type"] in PAPER_ONLY else _known(text)
    if found.top_k > found.experts:
        raise CheckpointError(f"config.json: {found.top_k} experts a token, the model has {found.experts}")
    sliding, window = windows(text, found.model_type, found.layers)
    return replace(found, vision_bytes=vision_bytes(config, found.hidden), sliding=sliding, window=window)


def _known(text: dict[str, Any]) -> Architecture:
    """A family that Halfbyte reads tensor by tensor."""
    model_type, _ = text["model_type"], _layers(text)
    roles = RoleMap(text)
    mla = None
    if "kv_lora_rank" in text:
        keys = ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
        mla = Mla(*(positive(text, key) for key in keys))
    indexer = None
    if roles.family.indexer:
        indexer = Indexer(*(positive(text, key) for key in ("index_n_heads", "index_head_dim", "index_topk")))
    width = positive(text, "moe_intermediate_size" if "moe_intermediate_size" in text else "intermediate_size")
    shared = positive(text, "n_shared_experts", 0) if roles.family.shared_expert else 0
    minimax = model_type == "minimax_m2"
    return Architecture(
        model_type=model_type,
        layers=roles.layers,
        # MiniMax announces MTP modules that it never published
        mtp_layers=0 if minimax else roles.mtp_layers or _unstated_mtp(text, model_type),
        dense=roles.dense,
        indexers=roles.indexers,
        **_common(text),
        experts=roles.num_experts,
        top_k=positive(text, "num_experts_per_tok"),
        expert_width=width,
        shared_width=shared * width,
        dense_width=positive(text, "intermediate_size"),
        mla=mla,
        indexer=indexer,
        attention_bias=bool(text.get("attention_bias")) and mla is None,
        qk_norm="all-heads" if minimax else _qk_norm(text, model_type),
        router_bias=minimax or roles.family.shared_expert,
        own_mtp_head=model_type != "glm_moe_dsa",
    )


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config, with the family's standard `model_type`."""
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError("config.json has no model_type")
    inner = config.get("text_config")
    text = dict(inner) if isinstance(inner, dict) and "hidden_size" in inner else dict(config)
    text.setdefault("model_type", config["model_type"])
    model_type = str(text["model_type"])
    text["model_type"] = ALIASES.get(model_type, model_type)
    if text["model_type"] not in FAMILIES and text["model_type"] not in PAPER_ONLY:
        known = ", ".join([*FAMILIES, *ALIASES, *PAPER_ONLY])
        raise UnsupportedError(f"model_type {model_type[:80]!r} is not a known family", hint=f"known: {known}")
    return text


def _unstated_mtp(text: dict[str, Any], model_type: str) -> int:
    """GLM-4.5 to 4.7 carry one MTP layer; copies of their config without the key (not with 0) mean the same files."""
    return 1 if model_type == "glm4_moe" and text.get("num_nextn_predict_layers") is None else 0


def _paper_only(text: dict[str, Any]) -> Architecture:
    model_type, layers = text["model_type"], _layers(text)
    width = positive(text, "intermediate_size")
    llama = model_type == "llama4"
    step = positive(text, "interleave_moe_layer_step", 1)
    return Architecture(
        model_type=model_type,
        layers=layers,
        mtp_layers=0,
        dense=frozenset(i for i in range(layers) if (i + 1) % step) if llama else frozenset(),
        indexers=frozenset(),
        **_common(text),
        experts=positive(text, "num_local_experts"),
        top_k=positive(text, "num_experts_per_tok"),
        expert_width=width,
        shared_width=width if llama else 0,
        dense_width=positive(text, "intermediate_size_mlp") if llama else width,
        attention_bias=not llama,
        router_bias=not llama,
        expert_bias=not llama,
    )


def _common(text: dict[str, Any]) -> dict[str, Any]:
    hidden, heads = positive(text, "hidden_size"), positive(text, "num_attention_heads")
    return {
        "hidden": hidden,
        "vocab": positive(text, "vocab_size"),
        "heads": heads,
        "kv_heads": positive(text, "num_key_value_heads"),
        "head_dim": positive(text, "head_dim", max(hidden // heads, 1)),
        "max_context": positive(text, "max_position_embeddings"),
        "tied_embeddings": bool(text.get("tie_word_embeddings")),
    }


def _qk_norm(text: dict[str, Any], model_type: str) -> str:
    return "per-head" if model_type == "qwen3_moe" or (text.get("use_qk_norm") and "kv_lora_rank" not in text) else ""


def _layers(text: dict[str, Any]) -> int:
    """Layers of the decoder. Bounded before anything is made for each of them."""
    layers = positive(text, "num_hidden_layers")
    if layers + positive(text, "num_nextn_predict_layers", 0) > MOST_LAYERS:
        raise CheckpointError(f"config.json: {layers} layers and their MTP layers, wanted at most {MOST_LAYERS}")
    return layers
