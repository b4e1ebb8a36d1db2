"""What a tensor can do in a model. Which tensor plays which role is a family's list (`family.Described`)."""

from enum import StrEnum
from typing import NamedTuple

from halfbyte.formats.catalogue import LINEAR_PARTS
from halfbyte.formats.storage import WEIGHT


class Role(StrEnum):
    """What a tensor does in the model. The order is the order of tables."""

    ROUTED_EXPERT = "routed_expert"
    SHARED_EXPERT = "shared_expert"
    DENSE_MLP = "dense_mlp"
    ATTENTION = "attention"
    LINEAR_ATTENTION = "linear_attention"
    """The token mixer of a layer that keeps a state instead of a cache (gated delta net, Mamba-2)."""
    INDEXER = "indexer"
    ROUTER = "router"
    LATENT = "latent"
    """What takes a token into the narrower space of its experts, and their sum back (latent mixture of experts)."""
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"
    NORM = "norm"
    HYPER_CONNECTION = "hyper_connection"
    """What mixes several residual streams into a block's input, and shares its output among them."""
    MTP = "mtp"
    """What only a multi-token-prediction layer has (`eh_proj`); its other tensors keep their role and set the flag."""
    TOWER = "tower"
    """Of another model beside the text model, for pictures, sound or video, and what projects it into the text."""


GLU = ("gate_proj", "up_proj", "down_proj")
"""Standard names of the three linears of an expert or MLP."""

UNGATED = ("up_proj", "down_proj")
"""The same of experts and MLPs without a gate."""

STACK_NAMES = ("gate_up_proj", "down_proj")
"""Of the two stacks of a layer's experts."""

CACHE_SCALES = ("k_scale", "v_scale")
"""Of a quantized KV cache: no weights, and not all engines read them."""

PARTS = LINEAR_PARTS | {"bias", *CACHE_SCALES}
"""What may follow a linear's path: its tensors in any of the formats we read, and the scales of a quantized cache."""

TABLE = "tid2eid"
"""Of whole numbers, and no weight: the experts of each token, where they are not chosen by the router's scores."""

CORRECTION = ("e_score_correction_bias", "bias")
"""What the bias by which a router chooses experts is called."""

SHARED_SCALE = (("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa", "kv_proj"), ("q_proj", "k_proj", "v_proj"))
"""Linears that engines fuse into one GEMM with one global scale: quantized, they must share `weight_scale_2`."""


class TensorRole(NamedTuple):
    """One tensor, explained.

    module: path of the module that owns it, as named in the checkpoint. part: what of the module it is.
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

    def named(self, part: str) -> str:
        """Name of one of the module's tensors. A stack is a parameter by itself, its other parts stand beside it."""
        if not self.fused:
            return f"{self.module}.{part}"
        return self.module if part == WEIGHT else f"{self.module}_{part}"
