"""What each model family calls its tensors. Data for `roles`; nothing else in Halfbyte knows a tensor's name.

A family is described by the module paths inside a decoder layer, in the names of the published checkpoints. `{e}` is
the expert number. Sources: the families' published weight maps, transformers 5.23 modelling code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from halfbyte.errors import CheckpointError


class Role(StrEnum):
    """What a tensor does in the model. The order is the order of tables."""

    ROUTED_EXPERT = "routed_expert"
    SHARED_EXPERT = "shared_expert"
    DENSE_MLP = "dense_mlp"
    ATTENTION = "attention"
    INDEXER = "indexer"
    ROUTER = "router"
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"
    NORM = "norm"
    MTP = "mtp"
    """What only a multi-token-prediction layer has (`eh_proj`); its other tensors keep their role and set the flag."""


GLU = ("gate_proj", "up_proj", "down_proj")
MLA = ("q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj", "q_proj")
GQA = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
INDEXER = ("wq_b", "wk", "weights_proj", "k_norm")


@dataclass(frozen=True)
class Family:
    """One `model_type`.

    experts_key: config key of the number of routed experts.
    container: module that holds router and experts, as published (`hub`) and as transformers 5 calls it when fused.
    expert_names: names of gate, up and down projection of one expert.
    """

    model_type: str
    experts_key: str
    attention: tuple[str, ...]
    indexer: bool = False
    container: str = "mlp"
    fused_container: str = "mlp"
    expert_names: tuple[str, str, str] = GLU
    shared_expert: bool = False
    mtp: bool = False

    @property
    def projections(self) -> dict[str, str]:
        """Published name of an expert's linear -> its standard name."""
        return dict(zip(self.expert_names, GLU, strict=True))


FAMILIES = {
    family.model_type: family
    for family in (
        Family("glm_moe_dsa", "n_routed_experts", MLA, indexer=True, shared_expert=True, mtp=True),
        Family("deepseek_v3", "n_routed_experts", MLA, shared_expert=True, mtp=True),
        Family("deepseek_v32", "n_routed_experts", MLA, indexer=True, shared_expert=True, mtp=True),
        Family("glm4_moe", "n_routed_experts", GQA, shared_expert=True, mtp=True),
        Family("qwen3_moe", "num_experts", GQA),
        Family(
            "minimax_m2",
            "num_local_experts",
            GQA,
            container="block_sparse_moe",
            expert_names=("w1", "w3", "w2"),
            mtp=True,
        ),
        Family("mixtral", "num_local_experts", GQA, container="block_sparse_moe", expert_names=("w1", "w3", "w2")),
    )
}


def dense_layers(config: dict[str, Any], family: Family) -> frozenset[int]:
    """Decoder layers with an ordinary MLP instead of experts, by the family's config keys."""
    layers = range(config["num_hidden_layers"])
    if config.get("mlp_layer_types") is not None:
        types = _per_layer(config, "mlp_layer_types", ("dense", "sparse"))
        return frozenset(i for i in layers if types[i] == "dense")
    if family.experts_key == "n_routed_experts":
        first = _natural(config, "first_k_dense_replace", 0)
        every = _natural(config, "moe_layer_freq", 1)
        return frozenset(i for i in layers if i < first or i % max(every, 1))
    if family.model_type == "qwen3_moe":
        listed, step = config.get("mlp_only_layers") or [], _natural(config, "decoder_sparse_step", 1)
        if not isinstance(listed, list):
            raise CheckpointError(f"config.json: mlp_only_layers is {str(listed)[:80]!r}, wanted a list")
        return frozenset(i for i in layers if i in listed or (i + 1) % max(step, 1))
    return frozenset()


def indexer_layers(config: dict[str, Any], family: Family) -> frozenset[int]:
    """Decoder layers that carry indexer weights. With IndexShare the others reuse the last selection.

    `indexer_types` (or `index_topk_pattern`) says so outright; else layer i is full when
    max(i - offset + 1, 0) % freq == 0 (transformers `GlmMoeDsaConfig`, vLLM and SGLang alike; the default offset
    is 2); without either, every layer is.
    """
    if not family.indexer:
        return frozenset()
    layers = range(config["num_hidden_layers"])
    for key in ("indexer_types", "index_topk_pattern"):
        if config.get(key) is not None:
            types = _per_layer(config, key, ("full", "shared", "F", "S"))
            return frozenset(i for i in layers if types[i] in ("full", "F"))
    frequency, offset = _natural(config, "index_topk_freq", 1), _natural(config, "index_skip_topk_offset", 2)
    return frozenset(i for i in layers if max(i - offset + 1, 0) % max(frequency, 1) == 0)


def _natural(config: dict[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not int or value < 0:
        raise CheckpointError(f"config.json: {key} is {str(value)[:80]!r}, wanted a non-negative integer")
    return value


def _per_layer(config: dict[str, Any], key: str, known: tuple[str, ...]) -> Sequence[Any]:
    """A config list (or string) with one known entry per decoder layer; entries for MTP layers may follow."""
    value = config[key]
    if not isinstance(value, list | str) or len(value) < config["num_hidden_layers"]:
        raise CheckpointError(
            f"config.json: {key} has {len(value) if isinstance(value, list | str) else 'no'} entries, wanted one for "
            f"each of {config['num_hidden_layers']} layers"
        )
    for i, entry in enumerate(value[: config["num_hidden_layers"]]):
        if entry not in known:
            raise CheckpointError(f"config.json: {key}[{i}] is {str(entry)[:80]!r}, wanted one of {', '.join(known)}")
    return value
