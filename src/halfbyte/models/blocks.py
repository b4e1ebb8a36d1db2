"""The parts that families are made of, as tensors: attention, indexer, router, experts, MTP.

Names are relative to a decoder layer; `model` puts them in their layers. Shapes follow the published checkpoints.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Described
from halfbyte.models.roles import CACHE_SCALES, GLU, UNGATED, Role

LayerOf = Callable[[Architecture, int], Iterable[Described]]


def model(arch: Architecture, inside: LayerOf) -> Iterator[Described]:
    """The embedding, every layer, MTP layers last, then final norm and head. inside: the tensors of layer N."""
    table = (arch.vocab, arch.hidden)
    yield Described("model.embed_tokens.weight", Role.EMBEDDING, table)
    promised = arch.layers + arch.mtp_layers
    for layer in range(arch.layers + max(arch.mtp_layers, arch.mtp_announced)):
        prefix, mtp = f"model.layers.{layer}.", layer >= arch.layers
        for tensor in inside(arch, layer):
            yield replace(
                tensor,
                name=prefix + tensor.name,
                also=tuple(prefix + name for name in tensor.also),
                layer=layer,
                mtp=mtp,
                promised=tensor.promised and layer < promised,
            )
    yield Described("model.norm.weight", Role.NORM, (arch.hidden,))
    yield Described("lm_head.weight", Role.LM_HEAD, table, promised=not arch.tied_embeddings)


def norms(arch: Architecture) -> Iterator[Described]:
    """The two norms of every layer."""
    yield Described("input_layernorm.weight", Role.NORM, (arch.hidden,))
    yield Described("post_attention_layernorm.weight", Role.NORM, (arch.hidden,))


def _attention(projection: str, *shape: int, part: str = "weight", promised: bool = True) -> Described:
    return Described(f"self_attn.{projection}.{part}", Role.ATTENTION, shape, projection, promised=promised)


def _cache_scales() -> Iterator[Described]:
    """Where the scales of a quantized KV cache live: vLLM's place, and ModelOpt's, which names `k_proj` and `v_proj`
    also where the attention is latent and has no such linears."""
    for part, projection in zip(CACHE_SCALES, ("k_proj", "v_proj"), strict=True):
        for owner in ("attn", projection):
            yield Described(f"self_attn.{owner}.{part}", Role.ATTENTION, (), dtype="f32", promised=False)


def mla(arch: Architecture) -> Iterator[Described]:
    """Multi-head latent attention of DeepSeek-V3; without a query rank, `q_proj` makes the queries directly."""
    assert arch.mla is not None
    hidden, heads, ranks = arch.hidden, arch.heads, arch.mla
    queries, compressed = heads * (ranks.nope + ranks.rope), ranks.q_rank > 0
    yield _attention("q_a_proj", ranks.q_rank, hidden, promised=compressed)
    yield _attention("q_a_layernorm", ranks.q_rank, promised=compressed)
    yield _attention("q_b_proj", queries, ranks.q_rank, promised=compressed)
    yield _attention("q_proj", queries, hidden, promised=not compressed)
    yield _attention("kv_a_proj_with_mqa", ranks.latent, hidden)
    yield _attention("kv_a_layernorm", ranks.kv_rank)
    yield _attention("kv_b_proj", heads * (ranks.nope + ranks.value), ranks.kv_rank)
    yield _attention("o_proj", hidden, heads * ranks.value)
    yield from _cache_scales()


def gqa(arch: Architecture, sinks: bool = False, number: int = 0) -> Iterator[Described]:
    """Grouped-query attention with biases and q/k norms as the config has them.

    sinks: gpt-oss's learned sink of each head, and a bias on o_proj. number: of the layer, where layers differ.
    """
    keys, width, values = arch.kv_heads_of(number), arch.head_dim_of(number), arch.value_width_of(number)
    query, key = arch.heads * width, keys * width
    gated = query * (2 if arch.gated_attention else 1)
    for projection, rows in (("q_proj", gated), ("k_proj", key), ("v_proj", keys * values)):
        if projection == "v_proj" and number in arch.keys_as_values:
            continue
        yield _attention(projection, rows, arch.hidden)
        if arch.attention_bias:
            yield _attention(projection, rows, part="bias")
    yield _attention("o_proj", arch.hidden, arch.heads * values)
    if sinks:
        yield _attention("o_proj", arch.hidden, part="bias")
        yield Described("self_attn.sinks", Role.ATTENTION, (arch.heads,), "sinks")
    whole = arch.qk_norm == "all-heads"
    yield _attention("q_norm", query if whole else width, promised=bool(arch.qk_norm))
    yield _attention("k_norm", key if whole else width, promised=bool(arch.qk_norm))
    yield from _cache_scales()


def gated_delta_net(arch: Architecture, joined: bool) -> Iterator[Described]:
    """Linear attention of Qwen3-Next and Qwen3.5. joined: whether its input projections are stored as two, not four."""
    assert arch.linear_attention is not None
    parts, hidden = arch.linear_attention, arch.hidden

    def tensor(projection: str, *shape: int) -> Described:
        return Described(f"linear_attn.{projection}.weight", Role.LINEAR_ATTENTION, shape, projection)

    values, heads = parts.values, parts.value_heads
    if joined:
        yield tensor("in_proj_qkvz", parts.convolved + values, hidden)
        yield tensor("in_proj_ba", 2 * heads, hidden)
    else:
        yield tensor("in_proj_qkv", parts.convolved, hidden)
        yield tensor("in_proj_z", values, hidden)
        yield tensor("in_proj_b", heads, hidden)
        yield tensor("in_proj_a", heads, hidden)
    yield tensor("conv1d", parts.convolved, 1, parts.kernel)
    for name in ("dt_bias", "A_log"):
        yield Described(f"linear_attn.{name}", Role.LINEAR_ATTENTION, (heads,))
    yield tensor("norm", parts.value_width)
    yield tensor("out_proj", hidden, values)


def indexer(arch: Architecture, norm_dtype: str = "bf16") -> Iterator[Described]:
    """The indexer of DeepSeek-V3.2's sparse attention; its k_norm is a LayerNorm with a bias."""
    assert arch.indexer is not None
    assert arch.mla is not None
    heads, width = arch.indexer.heads, arch.indexer.width

    def tensor(projection: str, *shape: int, part: str = "weight", dtype: str = "bf16") -> Described:
        return Described(f"self_attn.indexer.{projection}.{part}", Role.INDEXER, shape, projection, dtype)

    yield tensor("wq_b", heads * width, arch.mla.q_rank)
    yield tensor("wk", width, arch.hidden)
    yield tensor("k_norm", width, dtype=norm_dtype)
    yield tensor("k_norm", width, part="bias", dtype=norm_dtype)
    yield tensor("weights_proj", heads, arch.hidden)


def hyper_connections(arch: Architecture) -> Iterator[Described]:
    """What mixes the residual streams around attention and MLP: a projection of all streams, and its parts' scales."""
    weights = (2 + arch.streams) * arch.streams
    for block in ("attn", "ffn"):
        for part, shape in (("fn", (weights, arch.streams * arch.hidden)), ("base", (weights,)), ("scale", (3,))):
            yield Described(f"hc_{block}_{part}", Role.HYPER_CONNECTION, shape, dtype="bf16" if part == "fn" else "f32")


def swiglu(
    role: Role, path: str, hidden: int, width: int, promised: bool = True, gated: bool = True
) -> Iterator[Described]:
    """Gate, up and down projection of one MLP; without a gate, up and down."""
    for projection in GLU if gated else UNGATED:
        shape = (hidden, width) if projection == "down_proj" else (width, hidden)
        yield Described(f"{path}.{projection}.weight", role, shape, projection, promised=promised)


def dense_mlp(arch: Architecture) -> Iterator[Described]:
    return swiglu(Role.DENSE_MLP, "mlp", arch.hidden, arch.dense_width)


def shared_expert(arch: Architecture) -> Iterator[Described]:
    width = arch.shared_width
    return swiglu(Role.SHARED_EXPERT, "mlp.shared_experts", arch.hidden, width, promised=width > 0)


def gated_shared_expert(arch: Architecture) -> Iterator[Described]:
    """One shared expert, its output times the sigmoid of a gate of its own (Qwen)."""
    yield from swiglu(Role.SHARED_EXPERT, "mlp.shared_expert", arch.hidden, arch.shared_width)
    yield Described("mlp.shared_expert_gate.weight", Role.ROUTER, (1, arch.hidden), "shared_expert_gate")


def router(
    arch: Architecture,
    containers: tuple[str, ...] = ("mlp",),
    name: str = "gate",
    dtype: str = "bf16",
    bias: tuple[str, ...] = (),
    bias_dtype: str = "f32",
) -> Iterator[Described]:
    """The router. containers: the module that holds it, as published and as transformers 5 has saved it.

    bias: paths inside the container under which the correction bias is found, the published one first.
    """
    first, *others = [f"{container}.{name}.weight" for container in containers]
    yield Described(first, Role.ROUTER, (arch.experts, arch.hidden), "gate", dtype, also=tuple(others))
    if bias:
        first, *others = [f"{container}.{path}" for path in bias for container in containers]
        yield Described(first, Role.ROUTER, (arch.experts,), None, bias_dtype, also=tuple(others))


def experts(
    arch: Architecture, containers: tuple[str, ...] = ("mlp",), names: tuple[str, ...] = ()
) -> Iterator[Described]:
    """The routed experts one by one, and as the two stacks that transformers 5 saves. containers: the modules that may
    hold them, "" for the layer itself; names: gate, up, down, where they are not the standard ones."""
    hidden, width, number = arch.expert_hidden, arch.expert_width, arch.experts
    paths = [f"{container}.experts" if container else "experts" for container in containers]
    projections = GLU if arch.gated_experts else UNGATED
    for projection, published in zip(projections, names or projections, strict=True):
        shape = (hidden, width) if projection == "down_proj" else (width, hidden)
        first, *others = [
            f"{path}.{{e}}.{name}.weight" for path in paths for name in dict.fromkeys((published, projection))
        ]
        yield Described(first, Role.ROUTED_EXPERT, shape, projection, count=number, also=tuple(others))
    first_stack = (
        ("gate_up_proj", (number, 2 * width, hidden)) if arch.gated_experts else ("up_proj", (number, width, hidden))
    )
    for projection, stack in (first_stack, ("down_proj", (number, hidden, width))):
        first, *others = [f"{path}.{projection}{ending}" for path in paths for ending in ("", ".weight")]
        yield Described(first, Role.ROUTED_EXPERT, stack, projection, promised=False, also=tuple(others), stack=True)


def stacks(arch: Architecture, container: str) -> Iterator[Described]:
    """The routed experts as two stacks with their inputs down, where checkpoints have them no other way."""
    hidden, width, number = arch.hidden, arch.expert_width, arch.experts
    for projection, inputs, outputs in (("gate_up_proj", hidden, 2 * width), ("down_proj", width, hidden)):
        shape = (number, inputs, outputs)
        yield Described(f"{container}.experts.{projection}", Role.ROUTED_EXPERT, shape, projection, stack=True)


def mtp(arch: Architecture) -> Iterator[Described]:
    """What a multi-token-prediction layer has beside a decoder layer; embedding and head are its own in some models."""
    hidden, table = arch.hidden, (arch.vocab, arch.hidden)
    yield Described("eh_proj.weight", Role.MTP, (hidden, 2 * hidden), "eh_proj")
    for name in ("enorm", "hnorm", "shared_head.norm"):
        yield Described(f"{name}.weight", Role.NORM, (hidden,))
    yield Described("embed_tokens.weight", Role.EMBEDDING, table, promised=arch.own_mtp_head)
    yield Described("shared_head.head.weight", Role.LM_HEAD, table, promised=arch.own_mtp_head)
