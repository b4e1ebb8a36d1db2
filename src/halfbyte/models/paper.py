"""The tensors of a checkpoint that exists on paper only: role, layer, projection and shape, from the config alone.

Follows the published checkpoints of each family: biases, q/k norms, float32 router biases, and MTP layers with
(DeepSeek, GLM-4) or without (GLM-5) a copy of embedding and head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from halfbyte.models.architecture import Architecture
from halfbyte.models.families import Role


@dataclass(frozen=True, slots=True)
class PaperTensor:
    """`count` tensors of `shape`. storage: the published dtype of a tensor that no recipe quantizes."""

    role: Role
    layer: int | None
    projection: str | None
    shape: tuple[int, ...]
    count: int = 1
    storage: str = "bf16"
    mtp: bool = False


def paper_tensors(arch: Architecture) -> list[PaperTensor]:
    """Every tensor of the model, MTP layers included, vision tower excluded."""
    table = (arch.vocab, arch.hidden)
    found = [PaperTensor(Role.EMBEDDING, None, None, table), PaperTensor(Role.NORM, None, None, (arch.hidden,))]
    if not arch.tied_embeddings:
        found.append(PaperTensor(Role.LM_HEAD, None, None, table))
    for layer in range(arch.layers + arch.mtp_layers):
        found += _layer(arch, layer)
    return found


def _layer(arch: Architecture, layer: int) -> Iterator[PaperTensor]:
    mtp, hidden = layer >= arch.layers, arch.hidden
    yield PaperTensor(Role.NORM, layer, None, (hidden,), 2, mtp=mtp)
    yield from _attention(arch, layer, mtp)
    if arch.has_indexer(layer):
        yield from _indexer(arch, layer, mtp)
    if arch.is_moe(layer):
        yield from _moe(arch, layer, mtp)
    else:
        yield from _swiglu(Role.DENSE_MLP, layer, hidden, arch.dense_width, mtp)
    if mtp:
        yield PaperTensor(Role.MTP, layer, "eh_proj", (hidden, 2 * hidden), mtp=True)
        yield PaperTensor(Role.NORM, layer, None, (hidden,), 3, mtp=True)
        if arch.own_mtp_head:
            yield PaperTensor(Role.EMBEDDING, layer, None, (arch.vocab, hidden), mtp=True)
            yield PaperTensor(Role.LM_HEAD, layer, None, (arch.vocab, hidden), mtp=True)


def _attention(arch: Architecture, layer: int, mtp: bool) -> Iterator[PaperTensor]:
    def tensor(projection: str, *shape: int) -> PaperTensor:
        return PaperTensor(Role.ATTENTION, layer, projection, shape, mtp=mtp)

    hidden, heads = arch.hidden, arch.heads
    if arch.mla is not None:
        mla = arch.mla
        yield tensor("q_a_proj", mla.q_rank, hidden)
        yield tensor("q_a_layernorm", mla.q_rank)
        yield tensor("q_b_proj", heads * (mla.nope + mla.rope), mla.q_rank)
        yield tensor("kv_a_proj_with_mqa", mla.latent, hidden)
        yield tensor("kv_a_layernorm", mla.kv_rank)
        yield tensor("kv_b_proj", heads * (mla.nope + mla.value), mla.kv_rank)
        yield tensor("o_proj", hidden, heads * mla.value)
        return
    query, key = heads * arch.head_dim, arch.kv_heads * arch.head_dim
    for projection, rows in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
        yield tensor(projection, rows, hidden)
        if arch.attention_bias:
            yield tensor(projection, rows)
    yield tensor("o_proj", hidden, query)
    if arch.model_type == "gpt_oss":
        yield tensor("o_proj", hidden)
        yield tensor("sinks", heads)
    if arch.qk_norm:
        whole = arch.qk_norm == "all-heads"
        yield tensor("q_norm", query if whole else arch.head_dim)
        yield tensor("k_norm", key if whole else arch.head_dim)


def _indexer(arch: Architecture, layer: int, mtp: bool) -> Iterator[PaperTensor]:
    assert arch.indexer is not None
    assert arch.mla is not None
    heads, width = arch.indexer.heads, arch.indexer.width
    norm = "f32" if arch.model_type == "deepseek_v32" else "bf16"
    yield PaperTensor(Role.INDEXER, layer, "wq_b", (heads * width, arch.mla.q_rank), mtp=mtp)
    yield PaperTensor(Role.INDEXER, layer, "wk", (width, arch.hidden), mtp=mtp)
    yield PaperTensor(Role.INDEXER, layer, "k_norm", (width,), 2, norm, mtp)
    yield PaperTensor(Role.INDEXER, layer, "weights_proj", (heads, arch.hidden), mtp=mtp)


def _moe(arch: Architecture, layer: int, mtp: bool) -> Iterator[PaperTensor]:
    hidden, width, experts = arch.hidden, arch.expert_width, arch.experts
    minimax, oss = arch.model_type == "minimax_m2", arch.model_type == "gpt_oss"
    yield PaperTensor(Role.ROUTER, layer, "gate", (experts, hidden), 1, "f32" if minimax else "bf16", mtp)
    if arch.router_bias:
        yield PaperTensor(Role.ROUTER, layer, None, (experts,), 1, "bf16" if oss else "f32", mtp)
    yield from _swiglu(Role.ROUTED_EXPERT, layer, hidden, width, mtp, experts)
    if arch.expert_bias:
        yield PaperTensor(Role.ROUTED_EXPERT, layer, "gate_up_proj", (2 * width,), experts, mtp=mtp)
        yield PaperTensor(Role.ROUTED_EXPERT, layer, "down_proj", (hidden,), experts, mtp=mtp)
    if arch.shared_width:
        yield from _swiglu(Role.SHARED_EXPERT, layer, hidden, arch.shared_width, mtp)


def _swiglu(role: Role, layer: int, hidden: int, width: int, mtp: bool, copies: int = 1) -> Iterator[PaperTensor]:
    yield PaperTensor(role, layer, "gate_proj", (width, hidden), copies, mtp=mtp)
    yield PaperTensor(role, layer, "up_proj", (width, hidden), copies, mtp=mtp)
    yield PaperTensor(role, layer, "down_proj", (hidden, width), copies, mtp=mtp)
