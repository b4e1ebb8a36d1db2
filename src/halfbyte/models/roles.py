"""The spine: what role does a tensor play? Answered from its name and config.json alone, with no weights.

Recipe, quantizer, inspection, gate and plan all ask `RoleMap`; nobody else matches names. A name that the family does
not explain is an error, never a guess, and so is one that contradicts the config: an expert number beyond the last,
an indexer on a layer that shares its selection, experts on a dense layer.
"""

from typing import Any, NamedTuple

from halfbyte.errors import CheckpointError, UnknownTensorError, UnsupportedError
from halfbyte.formats.catalogue import NUMBER_PARTS, SCALE_PARTS
from halfbyte.models.families import FAMILIES, GLU, INDEXER, Family, Role, dense_layers, indexer_layers

PARTS = (*NUMBER_PARTS, *SCALE_PARTS, "bias", "k_scale", "v_scale", "e_score_correction_bias")
"""What may follow a module's path: the tensors of one linear in any of the formats we read."""

_KNOWN_PARTS = frozenset(PARTS)

SHARED_SCALE = (("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa"), ("q_proj", "k_proj", "v_proj"))
"""Linears that engines fuse into one GEMM with one global scale: quantized, they must share `weight_scale_2`."""


class TensorRole(NamedTuple):
    """One tensor, explained.

    module: path of the module that owns it, as named in the checkpoint. part: what of the module it is (PARTS).
    layer: decoder layer, MTP layers counted after the last; None outside the layers.
    expert: number of the routed expert; None elsewhere and for fused stacks. projection: standard name of the linear
    (`gate_proj`, `q_b_proj`, ...; `gate_up_proj` for a fused stack). fused: a 3-D stack over all experts.
    """

    role: Role
    module: str
    part: str
    layer: int | None = None
    expert: int | None = None
    projection: str | None = None
    mtp: bool = False
    fused: bool = False


class RoleMap:
    """Roles of one model. Raises UnsupportedError for an unknown family, CheckpointError for an incomplete config."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.family = _family_of(config)
        self.layers = _count(config, "num_hidden_layers")
        self.num_experts = _count(config, _experts_key(config, self.family))
        self.mtp_layers = _mtp_layers(config, self.family)
        self.dense = dense_layers(config, self.family)
        self.indexers = indexer_layers(config, self.family)
        self._outside = {"model.embed_tokens": Role.EMBEDDING, "model.norm": Role.NORM, "lm_head": Role.LM_HEAD}
        self._dense_layer = _layer_table(self.family, dense=True, mtp=False)
        self._moe_layer = _layer_table(self.family, dense=False, mtp=False)
        self._mtp_layer = _layer_table(self.family, dense=False, mtp=True)
        self._projections = self.family.projections | {name: name for name in GLU}
        self._containers = {self.family.container, self.family.fused_container}
        self._numbers: dict[str, int | None] = {}  # a few hundred spellings serve many thousand names

    def is_mtp(self, layer: int | None) -> bool:
        return layer is not None and layer >= self.layers

    def is_moe(self, layer: int) -> bool:
        return layer not in self.dense

    def role(self, name: str) -> TensorRole:
        """Explain one tensor. Raises UnknownTensorError naming it."""
        pieces = name.split(".")
        if pieces[:2] != ["model", "layers"] or len(pieces) < 5:
            if name.count(".") and pieces[-1] in PARTS:
                module = name[: -len(pieces[-1]) - 1]
                if module in self._outside:
                    return TensorRole(self._outside[module], module, pieces[-1])
            raise self._unknown(name, "no such module in this family")
        layer = self._number(pieces[2])
        if layer is None or layer >= self.layers + self.mtp_layers:
            reason = f"the config has layers 0 to {self.layers - 1} and {self.mtp_layers} MTP layer(s)"
            raise self._unknown(name, reason)
        if len(pieces) > 5 and pieces[4] == "experts" and pieces[3] in self._containers:
            return self._expert(name, layer, pieces)
        if pieces[-1] not in PARTS:
            raise self._unknown(name, f"unknown ending {pieces[-1]!r}")
        mtp = layer >= self.layers
        table = self._mtp_layer if mtp else self._dense_layer if layer in self.dense else self._moe_layer
        inside = ".".join(pieces[3:-1])
        found = table.get(inside)
        if found is None:
            kind = "MTP" if mtp else "dense" if layer in self.dense else "MoE"
            raise self._unknown(name, f"no such module in a {kind} layer of this family")
        role, projection = found
        is_bias = pieces[-1] == "e_score_correction_bias"
        if (is_bias and role is not Role.ROUTER) or (inside in self._containers and not is_bias):
            raise self._unknown(name, f"{inside!r} owns no {pieces[-1]!r}")
        if role is Role.INDEXER and not mtp and layer not in self.indexers:
            raise self._unknown(name, f"layer {layer} shares an earlier layer's selection and carries no indexer")
        return TensorRole(role, name[: -len(pieces[-1]) - 1], pieces[-1], layer, None, projection, mtp)

    def _expert(self, name: str, layer: int, pieces: list[str]) -> TensorRole:
        if layer in self.dense:
            raise self._unknown(name, f"layer {layer} is dense by the config")
        mtp = layer >= self.layers
        expert = self._number(pieces[5])
        if expert is None:  # a 3-D stack: experts.gate_up_proj or experts.down_proj, with or without .weight
            if pieces[5] in ("gate_up_proj", "down_proj") and (len(pieces) == 6 or pieces[6:] == ["weight"]):
                module = ".".join(pieces[:6])
                return TensorRole(Role.ROUTED_EXPERT, module, "weight", layer, None, pieces[5], mtp, fused=True)
            raise self._unknown(name, "no such expert tensor")
        if expert >= self.num_experts:
            raise self._unknown(name, f"the config has {self.num_experts} experts")
        if len(pieces) != 8 or pieces[6] not in self._projections or pieces[7] not in _KNOWN_PARTS:
            raise self._unknown(name, "no such expert tensor")
        module = name[: -len(pieces[7]) - 1]
        return TensorRole(Role.ROUTED_EXPERT, module, pieces[7], layer, expert, self._projections[pieces[6]], mtp)

    def expert_module(self, layer: int, expert: int, projection: str) -> str:
        """Module path of one expert's linear in the published names, which engines load."""
        published = self.family.expert_names[GLU.index(projection)]
        return f"model.layers.{layer}.{self.family.container}.experts.{expert}.{published}"

    def published(self, name: str) -> str:
        """A module or tensor name as the published checkpoints spell it: fused Mixtral says `mlp` where they do not."""
        pieces = name.split(".")
        if len(pieces) > 3 and pieces[1] == "layers" and pieces[3] == self.family.fused_container:
            pieces[3] = self.family.container if self.is_moe(int(pieces[2])) else pieces[3]
        return ".".join(pieces)

    def _number(self, piece: str) -> int | None:
        if piece not in self._numbers:
            self._numbers[piece] = _number(piece)
        return self._numbers[piece]

    def _unknown(self, name: str, reason: str) -> UnknownTensorError:
        shown = name if len(name) <= 200 else name[:200] + "..."
        return UnknownTensorError(
            f"tensor {shown!r} has no role in {self.family.model_type}: {reason}",
            hint="check that config.json belongs to these weights",
        )


def _layer_table(family: Family, dense: bool, mtp: bool) -> dict[str, tuple[Role, str | None]]:
    """Module path inside a layer -> role and projection, for everything but routed experts."""
    table: dict[str, tuple[Role, str | None]] = {
        "input_layernorm": (Role.NORM, None),
        "post_attention_layernorm": (Role.NORM, None),
    }
    table |= {f"self_attn.{name}": (Role.ATTENTION, name) for name in family.attention}
    table["self_attn.attn"] = (Role.ATTENTION, None)  # where k_scale and v_scale of a quantized cache live
    if family.indexer:
        table |= {f"self_attn.indexer.{name}": (Role.INDEXER, name) for name in INDEXER}
    if dense:
        table |= {f"mlp.{name}": (Role.DENSE_MLP, name) for name in GLU}
    else:
        for container in {family.container, family.fused_container}:
            table[f"{container}.gate"] = (Role.ROUTER, "gate")
            table[container] = (Role.ROUTER, None)  # MiniMax keeps e_score_correction_bias here
        if family.shared_expert:
            table |= {f"mlp.shared_experts.{name}": (Role.SHARED_EXPERT, name) for name in GLU}
    if mtp:
        table |= {
            "eh_proj": (Role.MTP, "eh_proj"),
            "enorm": (Role.NORM, None),
            "hnorm": (Role.NORM, None),
            "shared_head.norm": (Role.NORM, None),
            "shared_head.head": (Role.LM_HEAD, None),
            "embed_tokens": (Role.EMBEDDING, None),
        }
    return table


def _family_of(config: dict[str, Any]) -> Family:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError("config.json has no model_type")
    if model_type not in FAMILIES:
        raise UnsupportedError(
            f"model_type {model_type[:80]!r} is not a known mixture-of-experts family",
            hint=f"known: {', '.join(FAMILIES)}",
        )
    return FAMILIES[model_type]


def _experts_key(config: dict[str, Any], family: Family) -> str:
    """The family's published key, or what transformers 5 calls it where it has saved the config itself."""
    saved = "num_local_experts"
    return saved if config.get(family.experts_key) is None and config.get(saved) is not None else family.experts_key


def _count(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= 100_000:
        raise CheckpointError(f"config.json: {key} is {str(value)[:80]!r}, wanted a positive integer")
    return value


def _mtp_layers(config: dict[str, Any], family: Family) -> int:
    """How many layers beyond the last the config announces; their tensors may still be missing from the files."""
    if not family.mtp:
        return 0
    for key in ("num_nextn_predict_layers", "num_mtp_modules"):
        if config.get(key) is not None:
            return _count(config, key) if config[key] else 0
    return 0


def _number(piece: str) -> int | None:
    """The number a path component spells, if it is one in the canonical spelling."""
    return int(piece) if piece.isascii() and piece.isdigit() and len(piece) < 7 and str(int(piece)) == piece else None
