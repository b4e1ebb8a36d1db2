"""The numbers of a model that names, shapes, memory and speed depend on, under one set of names for all families.

A family's `read` makes one from config.json, every number checked; nothing below asks config.json for them again.
"""

from dataclasses import dataclass
from typing import Literal

Block = Literal["attention", "state", "experts", "mlp"]
"""What a layer has that has one block: softmax attention, a mixer that keeps a state, experts, or an ordinary MLP."""


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: ranks and per-head widths, in numbers. q_rank: 0 if queries are not compressed."""

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
class BlockSelection:
    """Attention to some blocks of keys only: heads that score and their width, keys of a block, blocks selected, layers
    that do so. One key a token and layer is kept for the scores."""

    heads: int
    width: int
    block: int
    top_k: int
    layers: frozenset[int]

    @property
    def tokens(self) -> int:
        """Keys that are attended to."""
        return self.block * self.top_k


@dataclass(frozen=True)
class CompressedAttention:
    """Attention to a window of keys and to compressed ones (DeepSeek-V4). One head is keys and values at once.

    q_rank: of the queries. groups, rank: of the output's first projection. ratios: keys that become one, for each
    layer, MTP layers last; 0 where there are none but the window's. sparse: the ratio whose layers select by an
    indexer, and whose compressed keys each reach over two groups of keys.
    """

    q_rank: int
    groups: int
    rank: int
    ratios: tuple[int, ...]
    sparse: int

    def width(self, layer: int, own: int) -> int:
        """Of what a key gives to compressed ones `own` wide."""
        return 2 * own if self.ratios[layer] == self.sparse else own


@dataclass(frozen=True)
class LinearAttention:
    """Gated delta net: heads and their widths for keys and values, and taps of its convolution."""

    key_heads: int
    value_heads: int
    key_width: int
    value_width: int
    kernel: int

    @property
    def keys(self) -> int:
        return self.key_heads * self.key_width

    @property
    def values(self) -> int:
        return self.value_heads * self.value_width

    @property
    def convolved(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.keys + self.values


@dataclass(frozen=True)
class Mamba:
    """Mamba-2: heads and their width, numbers of a channel's state, groups that share inputs and outputs of the state,
    taps of the convolution, whether that has a bias, and bytes of one number of the state as engines keep it."""

    heads: int
    width: int
    state: int
    groups: int
    kernel: int
    bias: bool
    state_bytes: int

    @property
    def inner(self) -> int:
        return self.heads * self.width

    @property
    def convolved(self) -> int:
        """Channels of the convolution: what is taken up, and the state's inputs and outputs."""
        return self.inner + 2 * self.groups * self.state

    @property
    def projected(self) -> int:
        """Rows of the first projection: a gate, the convolution's inputs and a time step for each head."""
        return self.inner + self.convolved + self.heads


@dataclass(frozen=True)
class Architecture:
    """One model. Layer numbers count from 0; MTP layers follow the last decoder layer.

    model_type: of the family. mtp_layers: those that belong to a complete checkpoint; mtp_announced: those for which
    config.json makes room, published or not. dense: decoder layers without experts. indexers: those that select.
    experts, top_k: routed experts per MoE layer and experts a token visits. shared_width: total width of the shared
    experts, 0 for none. vision_bytes: a BF16 vision tower beside the text model. max_context: tokens. sliding: layers
    that attend to the last `window` tokens only. linear: layers with linear attention, which keep a state per sequence
    and no cache per token. gated_attention: queries come with a gate as wide. gated_shared: the shared expert has one.
    value_dim: width of a value's head, 0 where it is head_dim. sliding_kv_heads, sliding_head_dim: of layers with a
    window, 0 where they have kv_heads and head_dim. keys_as_values: layers whose values are what k_proj gives. sinks:
    layers whose softmax has a learned sink in each head. mtp_dense: MTP layers have no experts.
    streams: of the residual, more than one with hyper-connections. index_pool: keys that the indexer scores as one.
    blocks: of layers that have one block each, in order; empty where each has a token mixer and an MLP. mamba: the
    mixer of layers in `linear`, if it is that. gated_experts: experts and MLPs have a gate_proj. latent: width of the
    experts' inputs and outputs, 0 where it is `hidden`.
    zero_experts: experts without weights beside the others, which give back what they are given. attentions: of a
    decoder layer, each with a dense MLP behind it where there is more than one.
    hash_routed: layers whose tokens go to experts by their number. tapped: how many layers a draft reads that several
    MTP layers make together (DSpark), and draft_rank: of its table of transitions; 0 for MTP layers of the usual kind.
    """

    model_type: str
    layers: int
    mtp_layers: int
    mtp_announced: int
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
    selection: BlockSelection | None = None
    compressed: CompressedAttention | None = None
    attention_bias: bool = False
    qk_norm: str = ""
    router_bias: bool = False
    expert_bias: bool = False
    tied_embeddings: bool = False
    own_mtp_head: bool = False
    vision_bytes: int = 0
    sliding: frozenset[int] = frozenset()
    window: int = 0
    linear: frozenset[int] = frozenset()
    linear_attention: LinearAttention | None = None
    gated_attention: bool = False
    gated_shared: bool = False
    value_dim: int = 0
    sliding_kv_heads: int = 0
    sliding_head_dim: int = 0
    keys_as_values: frozenset[int] = frozenset()
    sinks: frozenset[int] = frozenset()
    mtp_dense: bool = False
    streams: int = 1
    index_pool: int = 1
    hash_routed: frozenset[int] = frozenset()
    tapped: int = 0
    draft_rank: int = 0
    blocks: tuple[Block, ...] = ()
    mamba: Mamba | None = None
    gated_experts: bool = True
    latent: int = 0
    zero_experts: int = 0
    attentions: int = 1

    @property
    def depth(self) -> int:
        """Layers, counted as if each had one attention."""
        return self.layers * self.attentions

    @property
    def visited(self) -> float:
        """Experts with weights that a token visits where all are chosen alike."""
        return self.top_k * self.experts / (self.experts + self.zero_experts)

    @property
    def expert_hidden(self) -> int:
        """Width of an expert's input and output."""
        return self.latent or self.hidden

    @property
    def kv_numbers(self) -> int:
        """Numbers of one key and one value of a head, where they are kept by head."""
        return self.head_dim + (self.value_dim or self.head_dim)

    @property
    def sliding_kv_numbers(self) -> int:
        """The same in a layer with a window."""
        width = self.sliding_head_dim or self.head_dim
        return width + (self.value_dim or width)

    def kv_heads_of(self, layer: int) -> int:
        return self.sliding_kv_heads if layer in self.sliding and self.sliding_kv_heads else self.kv_heads

    def head_dim_of(self, layer: int) -> int:
        return self.sliding_head_dim if layer in self.sliding and self.sliding_head_dim else self.head_dim

    def value_width_of(self, layer: int) -> int:
        """Of a head's values where keys and values are kept by head."""
        return self.value_dim or self.head_dim_of(layer)

    def is_moe(self, layer: int) -> bool:
        if self.blocks and layer < self.layers:
            return self.blocks[layer] == "experts"
        return layer not in self.dense and not (self.mtp_dense and layer >= self.layers)

    def attends(self, layer: int) -> bool:
        """Whether a layer has softmax attention, and so a cache for each token."""
        if self.blocks and layer < self.layers:
            return self.blocks[layer] == "attention"
        return layer not in self.linear

    def is_mtp(self, layer: int) -> bool:
        return layer >= self.layers

    def has_indexer(self, layer: int) -> bool:
        """Whether a layer carries indexer weights and keys; an MTP layer of a DSA model always does."""
        return self.indexer is not None and (layer >= self.layers or layer in self.indexers)
