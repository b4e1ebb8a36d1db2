"""Totals of every header set, computed in closed form from the config and never from tensor names.

`expected(name)` returns tensors, parameters, bytes and parameters per `(role, mtp)`. Parameters are logical weights:
scale tensors do not count, and an NVFP4 byte counts as two. `PUBLISHED` holds exact figures from outside.
"""

from dataclasses import dataclass
from math import ceil

from .configs import CONFIGS, Config
from .headers import Variant, variant

DTYPE_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1, "I8": 1, "F8_E8M0": 1, "I64": 8}


@dataclass(frozen=True)
class Expected:
    """Totals of one header set."""

    tensors: int
    parameters: int
    bytes: int
    roles: dict[tuple[str, bool], int]


@dataclass(frozen=True)
class _Part:
    """A group of tensors with one role, occurring `copies` times.

    `matrices` are the quantizable weights as (rows, columns, how many); `plain` and `plain_tensors` count the
    elements and tensors beside them, of which `f32` elements are stored in float32 and `i64` as whole
    numbers. `stored` replaces the number of tensors that hold the matrices when experts are fused.
    """

    role: str
    mtp: bool
    copies: int
    matrices: tuple[tuple[int, int, int], ...] = ()
    plain: int = 0
    plain_tensors: int = 0
    f32: int = 0
    i64: int = 0
    stored: int | None = None

    def parameters(self) -> int:
        """Logical weights in all copies."""
        return self.copies * (self.plain + sum(rows * columns * n for rows, columns, n in self.matrices))

    def tensors(self, storage: Variant) -> int:
        """Stored tensors in all copies: one a matrix, two with an FP8 scale, four in NVFP4."""
        matrices = sum(n for _, _, n in self.matrices) if self.stored is None else self.stored
        return self.copies * (self.plain_tensors + matrices * self._tensors_a_matrix(storage))

    def bytes(self, storage: Variant) -> int:
        """Stored bytes in all copies."""
        total = 2 * self.plain + 2 * self.f32 + 6 * self.i64
        for rows, columns, n in self.matrices:
            if storage.mxfp4 and self.role == "routed_expert":
                total += n * (rows * columns // 2 + rows * columns // 32)
            elif storage.fp8:
                scale = 1 if storage.mxfp4 else 4
                total += n * (rows * columns + scale * ceil(rows / 128) * ceil(columns / 128))
            elif self._nvfp4(storage):
                total += n * (rows * columns * 9 // 16 + 8)
            else:
                total += n * 2 * rows * columns
        return self.copies * total

    def _nvfp4(self, storage: Variant) -> bool:
        return storage.nvfp4 and self.role == "routed_expert" and not self.mtp

    def _tensors_a_matrix(self, storage: Variant) -> int:
        if storage.fp8 or (storage.mxfp4 and self.role == "routed_expert"):
            return 2
        return 4 if self._nvfp4(storage) else 1


def _mlp(hidden: int, width: int, copies: int = 1) -> tuple[tuple[int, int, int], ...]:
    return (width, hidden, 2 * copies), (hidden, width, copies)


def _mla_part(c: Config, layers: int, mtp: bool) -> _Part:
    h, heads, q, kv = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"], c["kv_lora_rank"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    matrices = (
        (q, h, 1),
        (heads * (nope + rope), q, 1),
        (kv + rope, h, 1),
        (heads * (nope + v), kv, 1),
        (h, heads * v, 1),
    )
    return _Part("attention", mtp, layers, matrices, plain=q + kv, plain_tensors=2)


def _indexer_part(c: Config, layers: int, mtp: bool) -> _Part:
    h, heads, d = c["hidden_size"], c["index_n_heads"], c["index_head_dim"]
    f32 = 2 * d if c["model_type"] == "deepseek_v32" else 0
    matrices = ((heads * d, c["q_lora_rank"], 1), (d, h, 1))
    return _Part("indexer", mtp, layers, matrices, plain=2 * d + heads * h, plain_tensors=3, f32=f32)


def _gqa_part(c: Config, layers: int, mtp: bool, bias: bool, norm: int) -> _Part:
    """`norm` is the number of elements in q_norm and k_norm together, 0 without them."""
    h, d = c["hidden_size"], c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    plain = norm + (q + 2 * kv if bias else 0)
    plain_tensors = (2 if norm else 0) + (3 if bias else 0)
    return _Part("attention", mtp, layers, ((q, h, 1), (kv, h, 2), (h, q, 1)), plain, plain_tensors)


def _expert_part(h: int, width: int, experts: int, layers: int, mtp: bool, fused: bool) -> _Part:
    return _Part("routed_expert", mtp, layers, _mlp(h, width, experts), stored=2 if fused else None)


def _ends(c: Config) -> list[_Part]:
    """Embedding, output head, final norm and the two norms of every main layer."""
    h, table = c["hidden_size"], c["vocab_size"] * c["hidden_size"]
    norms = 2 * c["num_hidden_layers"] + 1
    return [
        _Part("embedding", False, 1, plain=table, plain_tensors=1),
        _Part("lm_head", False, 1, plain=table, plain_tensors=1),
        _Part("norm", False, norms, plain=h, plain_tensors=1),
    ]


def _deepseek_like(c: Config, fused: bool, mtp: bool) -> list[_Part]:
    """DeepSeek-V3, DeepSeek-V3.2, GLM-5 and GLM-4.5: leading dense layers, shared expert, biased router, MTP layer."""
    h, layers, dense = c["hidden_size"], c["num_hidden_layers"], c["first_k_dense_replace"]
    width, experts, sparse = c["moe_intermediate_size"], c["n_routed_experts"], layers - dense
    qk_norm = 2 * c.get("head_dim", 0) if c.get("use_qk_norm") else 0
    parts = [*_ends(c), _Part("dense_mlp", False, dense, _mlp(h, c["intermediate_size"]))]
    extra = c["num_nextn_predict_layers"] if mtp else 0
    for in_mtp, every, moe in ((False, layers, sparse), (True, extra, extra)):
        if "kv_lora_rank" in c:
            parts.append(_mla_part(c, every, in_mtp))
        else:
            parts.append(_gqa_part(c, every, in_mtp, bias=c["attention_bias"], norm=qk_norm))
        if "index_n_heads" in c:
            main_indexers = c["indexer_types"].count("full") if "indexer_types" in c else layers
            parts.append(_indexer_part(c, extra if in_mtp else main_indexers, in_mtp))
        router = _Part("router", in_mtp, moe, plain=experts * h + experts, plain_tensors=2, f32=experts)
        shared = _Part("shared_expert", in_mtp, moe, _mlp(h, width * c["n_shared_experts"]))
        parts += [router, shared, _expert_part(h, width, experts, moe, in_mtp, fused)]
    parts.append(_Part("norm", True, extra, plain=5 * h, plain_tensors=5))
    parts.append(_Part("mtp", True, extra, plain=2 * h * h, plain_tensors=1))
    if c["model_type"] != "glm_moe_dsa":
        parts.append(_Part("embedding", True, extra, plain=c["vocab_size"] * h, plain_tensors=1))
        parts.append(_Part("lm_head", True, extra, plain=c["vocab_size"] * h, plain_tensors=1))
    return parts


def _qwen3(c: Config, fused: bool) -> list[_Part]:
    """Qwen3 MoE: every layer sparse in the published models, per-head q/k norms, plain router."""
    h, layers, experts = c["hidden_size"], c["num_hidden_layers"], c["num_experts"]
    return [
        *_ends(c),
        _gqa_part(c, layers, False, bias=False, norm=2 * c["head_dim"]),
        _Part("router", False, layers, plain=experts * h, plain_tensors=1),
        _expert_part(h, c["moe_intermediate_size"], experts, layers, False, fused),
    ]


def _qwen3_next(c: Config, fused: bool, mtp: bool, joined: bool = True) -> list[_Part]:
    """Qwen3-Next: a gated delta net in all layers but every fourth, gated queries there, a gated shared expert, MTP.

    joined: input projections of the delta net stored as two; Qwen3.5 stores four.
    """
    h, layers, experts, width = c["hidden_size"], c["num_hidden_layers"], c["num_experts"], c["moe_intermediate_size"]
    full, d, heads = layers // c["full_attention_interval"], c["head_dim"], c["linear_num_value_heads"]
    keys, values = c["linear_num_key_heads"] * c["linear_key_head_dim"], heads * c["linear_value_head_dim"]
    small = (2 * keys + values) * c["linear_conv_kernel_dim"] + 2 * heads + c["linear_value_head_dim"]
    inputs: tuple[tuple[int, int, int], ...] = ((2 * keys + 2 * values, h, 1), (2 * heads, h, 1))
    if not joined:
        inputs = ((2 * keys + values, h, 1), (values, h, 1), (heads, h, 2))
    matrices = (*inputs, (h, values, 1))
    query, key = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    parts = [*_ends(c), _Part("linear_attention", False, layers - full, matrices, plain=small, plain_tensors=4)]
    for in_mtp, attends, moe in ((False, full, layers), (True, int(mtp), int(mtp))):
        gqa = ((2 * query, h, 1), (key, h, 2), (h, query, 1))
        parts += [
            _Part("attention", in_mtp, attends, gqa, plain=2 * d, plain_tensors=2),
            _Part("router", in_mtp, moe, plain=experts * h + h, plain_tensors=2),
            _Part("shared_expert", in_mtp, moe, _mlp(h, c["shared_expert_intermediate_size"])),
            _expert_part(h, width, experts, moe, in_mtp, fused),
        ]
    return [
        *parts,
        _Part("norm", True, int(mtp), plain=5 * h, plain_tensors=5),
        _Part("mtp", True, int(mtp), plain=2 * h * h, plain_tensors=1),
    ]


def _minimax(c: Config, fused: bool) -> list[_Part]:
    """MiniMax-M2: q/k norms over all heads, F32 router and bias; the declared MTP modules are not published."""
    h, layers, experts = c["hidden_size"], c["num_hidden_layers"], c["num_local_experts"]
    norm = (c["num_attention_heads"] + c["num_key_value_heads"]) * c["head_dim"]
    router = experts * h + experts
    return [
        *_ends(c),
        _gqa_part(c, layers, False, bias=False, norm=norm),
        _Part("router", False, layers, plain=router, plain_tensors=2, f32=router),
        _expert_part(h, c["intermediate_size"], experts, layers, False, fused),
    ]


def _mixtral(c: Config, fused: bool) -> list[_Part]:
    """Mixtral: no q/k norm, no bias, plain router."""
    h, layers, experts = c["hidden_size"], c["num_hidden_layers"], c["num_local_experts"]
    return [
        *_ends(c),
        _gqa_part(c, layers, False, bias=False, norm=0),
        _Part("router", False, layers, plain=experts * h, plain_tensors=1),
        _expert_part(h, c["intermediate_size"], experts, layers, False, fused),
    ]


def _ernie(c: Config) -> list[_Part]:
    """ERNIE 4.5: a dense first layer, shared experts, F32 router and bias, an MTP layer that is dense; tied head."""
    h, layers, experts, width = (
        c["hidden_size"],
        c["num_hidden_layers"],
        c["moe_num_experts"],
        c["moe_intermediate_size"],
    )
    dense = c["moe_layer_start_index"]
    router = experts * h + experts
    ends = [part for part in _ends(c) if part.role != "lm_head"]
    return [
        *ends,
        _gqa_part(c, layers, False, bias=False, norm=0),
        _Part("dense_mlp", False, dense, _mlp(h, c["intermediate_size"])),
        _Part("router", False, layers - dense, plain=router, plain_tensors=2, f32=router),
        _Part("shared_expert", False, layers - dense, _mlp(h, width * c["moe_num_shared_experts"])),
        _expert_part(h, width, experts, layers - dense, False, False),
        _gqa_part(c, 1, True, bias=False, norm=0),
        _Part("dense_mlp", True, 1, _mlp(h, c["intermediate_size"])),
        _Part("norm", True, 1, plain=4 * h, plain_tensors=4),
        _Part("mtp", True, 1, plain=2 * h * h, plain_tensors=1),
    ]


def _hunyuan(c: Config) -> list[_Part]:
    """Hunyuan-A13B: per-head q/k norms, a shared MLP and an F32 router in every layer; tied head."""
    h, layers, experts, width = c["hidden_size"], c["num_hidden_layers"], c["num_experts"], c["intermediate_size"]
    router = experts * h
    return [
        *[part for part in _ends(c) if part.role != "lm_head"],
        _gqa_part(c, layers, False, bias=False, norm=2 * c["head_dim"]),
        _Part("router", False, layers, plain=router, plain_tensors=1, f32=router),
        _Part("shared_expert", False, layers, _mlp(h, width)),
        _expert_part(h, width, experts, layers, False, False),
    ]


def _mimo(c: Config) -> list[_Part]:
    """MiMo-V2-Flash: windows with sinks and more key-value heads, narrow values, a dense first layer, a router bias."""
    h, layers, experts, heads = (
        c["hidden_size"],
        c["num_hidden_layers"],
        c["n_routed_experts"],
        c["num_attention_heads"],
    )
    d, v, near = c["head_dim"], c["v_head_dim"], sum(c["hybrid_layer_pattern"])

    def attention(copies: int, keys: int, sinks: int) -> _Part:
        matrices = ((heads * d, h, 1), (keys * d, h, 1), (keys * v, h, 1), (h, heads * v, 1))
        return _Part("attention", False, copies, matrices, plain=sinks, plain_tensors=1 if sinks else 0)

    return [
        *_ends(c),
        attention(layers - near, c["num_key_value_heads"], 0),
        attention(near, c["swa_num_key_value_heads"], heads),
        _Part("dense_mlp", False, 1, _mlp(h, c["intermediate_size"])),
        _Part("router", False, layers - 1, plain=experts * h + experts, plain_tensors=2, f32=experts),
        _expert_part(h, c["moe_intermediate_size"], experts, layers - 1, False, False),
    ]


def _gpt_oss(c: Config) -> list[_Part]:
    """gpt-oss: biases everywhere, a sink in each head, two stacks of experts."""
    h, layers, experts, width = c["hidden_size"], c["num_hidden_layers"], c["num_local_experts"], c["intermediate_size"]
    attention = _gqa_part(c, layers, False, bias=True, norm=0)
    sinks = _Part("attention", False, layers, plain=h + c["num_attention_heads"], plain_tensors=2)
    biases = _Part("routed_expert", False, layers, plain=experts * (2 * width + h), plain_tensors=2)
    return [
        *_ends(c),
        attention,
        sinks,
        _Part("router", False, layers, plain=experts * h + experts, plain_tensors=2),
        _expert_part(h, width, experts, layers, False, True),
        biases,
    ]


def _gemma4(c: Config, fused: bool) -> list[_Part]:
    """Gemma 4 with experts: wider heads without v_proj in every sixth layer, an MLP beside experts, scaled layers."""
    h, layers, experts, heads = c["hidden_size"], c["num_hidden_layers"], c["num_experts"], c["num_attention_heads"]
    full = c["layer_types"].count("full_attention")
    near, far = c["head_dim"], c["global_head_dim"]
    keys, few = c["num_key_value_heads"] * near, c["num_global_key_value_heads"] * far
    windowed = (heads * near, h, 1), (keys, h, 2), (h, heads * near, 1)
    return [
        _Part("embedding", False, 1, plain=c["vocab_size"] * h, plain_tensors=1),
        _Part("norm", False, 7 * layers + 1, plain=h, plain_tensors=1),
        _Part("norm", False, layers, plain=1, plain_tensors=1),
        _Part("attention", False, layers - full, windowed, 2 * near, 2),
        _Part("attention", False, full, ((heads * far, h, 1), (few, h, 1), (h, heads * far, 1)), 2 * far, 2),
        _Part("shared_expert", False, layers, _mlp(h, c["intermediate_size"])),
        _Part("router", False, layers, plain=experts * h + h + experts, plain_tensors=3),
        _expert_part(h, c["moe_intermediate_size"], experts, layers, False, fused),
    ]


def _longcat(c: Config) -> list[_Part]:
    """LongCat-Flash: two latent attentions and dense MLPs a layer, experts, and identities that only the router has."""
    h, layers, experts = c["hidden_size"], c["num_layers"], c["n_routed_experts"]
    router = (experts + c["zero_expert_num"]) * (h + 1)
    return [
        *_ends({**c, "num_hidden_layers": 2 * layers}),
        _mla_part(c, 2 * layers, False),
        _Part("dense_mlp", False, 2 * layers, _mlp(h, c["ffn_hidden_size"])),
        _Part("router", False, layers, plain=router, plain_tensors=2, f32=router),
        _expert_part(h, c["expert_ffn_hidden_size"], experts, layers, False, False),
    ]


def _deepseek_v4(c: Config) -> list[_Part]:
    """DeepSeek-V4: window, compressed keys with and without an indexer, streams, experts by token in three layers."""
    h, layers, experts, width = (
        c["hidden_size"],
        c["num_hidden_layers"],
        c["n_routed_experts"],
        c["moe_intermediate_size"],
    )
    heads, d, q, streams = c["num_attention_heads"], c["head_dim"], c["q_lora_rank"], c["hc_mult"]
    drafts = len(c.get("dspark_target_layer_ids") or [0])
    groups, rank, ratios, hashed = c["o_groups"], c["o_lora_rank"], c["compress_ratios"], c["num_hash_layers"]
    mixing, table, chosen = (2 + streams) * streams, c["vocab_size"] * h, c["vocab_size"] * c["num_experts_per_tok"]
    inner, head_mix = c["index_head_dim"], streams * streams * h + streams + 1
    streamed = mixing * streams * h + mixing + 3
    sparse, heavy = ratios[:layers].count(4), ratios[:layers].count(128)
    linears = (
        (q, h, 1),
        (heads * d, q, 1),
        (d, h, 1),
        (groups * rank, heads * d // groups, 1),
        (h, groups * rank, 1),
    )

    def compressor(role: str, copies: int, ratio: int, own: int, over: int) -> _Part:
        places = ratio * over * own
        return _Part(role, False, copies, plain=2 * over * own * h + own + places, plain_tensors=4, f32=places)

    def router(mtp: bool, copies: int) -> _Part:
        return _Part("router", mtp, copies, plain=experts * h + experts, plain_tensors=2, f32=experts)

    parts = [
        _Part("embedding", False, 1, plain=table, plain_tensors=1),
        _Part("lm_head", False, 1, plain=table, plain_tensors=1),
        _Part("norm", False, 1, plain=h, plain_tensors=1),
        _Part("hyper_connection", False, 1, plain=head_mix, plain_tensors=3, f32=head_mix),
        compressor("attention", sparse, 4, d, 2),
        compressor("attention", heavy, 128, d, 1),
        compressor("indexer", sparse, 4, inner, 2),
        _Part("indexer", False, sparse, ((c["index_n_heads"] * inner, q, 1),), c["index_n_heads"] * h, 1),
        _Part("router", False, hashed, plain=experts * h + chosen, plain_tensors=2, i64=chosen),
        router(False, layers - hashed),
        router(True, drafts),
        _Part("hyper_connection", True, 1, plain=head_mix, plain_tensors=3, f32=head_mix),
    ]
    if drafts > 1:  # DSpark
        rank_2, taps = c["dspark_markov_rank"], len(c["dspark_target_layer_ids"])
        table_2 = 2 * c["vocab_size"] * rank_2
        parts.append(_Part("norm", True, 2, plain=h, plain_tensors=1))
        parts.append(_Part("mtp", True, 1, ((h, taps * h, 1),), plain=table_2 + h + rank_2, plain_tensors=3))
    else:
        parts.append(_Part("norm", True, 3, plain=h, plain_tensors=1))
        parts.append(_Part("mtp", True, 1, ((h, h, 2),)))
    for mtp, copies in ((False, layers), (True, drafts)):
        parts += [
            _Part("norm", mtp, 2 * copies, plain=h, plain_tensors=1),
            _Part("attention", mtp, copies, linears, plain=q + d + heads, plain_tensors=3, f32=heads),
            _Part("hyper_connection", mtp, 2 * copies, plain=streamed, plain_tensors=3, f32=streamed),
            _Part("shared_expert", mtp, copies, _mlp(h, width)),
            _expert_part(h, width, experts, copies, mtp, False),
        ]
    return parts


def _nemotron(c: Config) -> list[_Part]:
    """Nemotron-3: one block a layer, Mamba-2, attention or experts; no gates; a latent space for experts, and MTP."""
    h, latent = c["hidden_size"], c.get("moe_latent_size", 0)
    words = {"mamba": "M", "attention": "*", "moe": "E"}
    pattern = "".join(map(words.__getitem__, c.get("layers_block_type", ()))) or c["hybrid_override_pattern"]
    heads, groups, state = c["mamba_num_heads"], c["n_groups"], c["ssm_state_size"]
    inner = heads * c["mamba_head_dim"]
    channels = inner + 2 * groups * state
    small = channels * (c["conv_kernel"] + 1) + 3 * heads + inner
    experts, width, shared = c["n_routed_experts"], c["moe_intermediate_size"], c["moe_shared_expert_intermediate_size"]
    query, key = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    drafts = c.get("num_nextn_predict_layers", 0)
    parts = [part for part in _ends({**c, "num_hidden_layers": len(pattern)}) if part.role != "norm"]
    parts += [
        _Part("norm", False, len(pattern) + 1, plain=h, plain_tensors=1),
        _Part(
            "linear_attention",
            False,
            pattern.count("M"),
            ((inner + channels + heads, h, 1), (h, inner, 1)),
            plain=small,
            plain_tensors=6,
        ),
        _Part("norm", True, 5 * drafts, plain=h, plain_tensors=1),
        _Part("mtp", True, drafts, plain=2 * h * h, plain_tensors=1),
    ]
    for mtp, attends, moe in ((False, pattern.count("*"), pattern.count("E")), (True, drafts, drafts)):
        ways = ((width, latent or h, experts), (latent or h, width, experts))
        parts += [
            _Part("attention", mtp, attends, ((query, h, 1), (key, h, 2), (h, query, 1))),
            _Part("router", mtp, moe, plain=experts * h + experts, plain_tensors=2, f32=experts),
            _Part("shared_expert", mtp, moe, ((shared, h, 1), (h, shared, 1))),
            _Part("routed_expert", mtp, moe, ways),
        ]
        if latent:
            parts.append(_Part("latent", mtp, moe, ((latent, h, 1), (h, latent, 1))))
    return parts


_ALONE = {
    "deepseek_v4": _deepseek_v4,
    "ernie4_5_moe": _ernie,
    "gpt_oss": _gpt_oss,
    "hunyuan_v1_moe": _hunyuan,
    "longcat_flash": _longcat,
    "mimo_v2_flash": _mimo,
    "nemotron_h": _nemotron,
}
"""Those with one kind of set, as published."""


def expected(name: str) -> Expected:
    """Compute the totals of one header set from its config."""
    c, storage = CONFIGS[name], variant(name)
    if c["model_type"] == "qwen3_moe":
        parts = _qwen3(c, storage.fused)
    elif c["model_type"] == "qwen3_next":
        parts = _qwen3_next(c, storage.fused, storage.mtp)
    elif c["model_type"] == "qwen3_5_moe_text":
        parts = _qwen3_next(c, storage.fused, False, joined=False)
    elif c["model_type"] == "gemma4_text":
        parts = _gemma4(c, storage.fused)
    elif c["model_type"] in _ALONE:
        parts = _ALONE[c["model_type"]](c)
    elif c["model_type"] == "minimax_m2":
        parts = _minimax(c, storage.fused)
    elif c["model_type"] == "mixtral":
        parts = _mixtral(c, storage.fused)
    else:
        parts = _deepseek_like(c, storage.fused, storage.mtp)
    roles: dict[tuple[str, bool], int] = {}
    for part in parts:
        if part.copies:
            roles[part.role, part.mtp] = roles.get((part.role, part.mtp), 0) + part.parameters()
    return Expected(
        tensors=sum(part.tensors(storage) for part in parts),
        parameters=sum(part.parameters() for part in parts),
        bytes=sum(part.bytes(storage) for part in parts),
        roles=roles,
    )


@dataclass(frozen=True)
class Published:
    """Exact figures of a published checkpoint; `elements` counts stored numbers, so scales too and U8 bytes once."""

    source: str
    tensors: int | None = None
    bytes: int | None = None
    elements: int | None = None


_HUB = "element total of the model hub, quoted in a public model table"
_NOTE = "project note on NVFP4 checkpoints, sections 2.6 to 3.3"

PUBLISHED: dict[str, Published] = {
    "GLM-5.2": Published(f"{_NOTE}; {_HUB}", bytes=1_506_659_919_872, elements=753_329_940_480),
    "GLM-5.2-FP8": Published(f"{_NOTE}; published index", tensors=118_629, bytes=755_617_140_416),
    "GLM-5.2-NVFP4": Published(_NOTE, bytes=464_795_267_072),
    "GLM-5.1": Published(_HUB, elements=753_864_139_008),
    "DeepSeek-V3": Published(
        "header dumps of DeepSeek-V3 and R1", tensors=91_991, bytes=688_574_839_360, elements=684_531_386_000
    ),
    "DeepSeek-V3.2": Published(f"{_HUB} (V3.2-Exp and Speciale)", elements=685_396_921_376),
    "DeepSeek-V4-Flash": Published(
        "tensor list of the checkpoint in a public model report", tensors=69_187, elements=158_069_433_298
    ),
    "DeepSeek-V4-Flash-0731": Published(
        "pinned identity of the published index in a public loader", tensors=72_317, bytes=166_878_536_440
    ),
    "gpt-oss-20b": Published("header report of the checkpoint", tensors=459, elements=11_956_805_184),
    "GLM-4.7": Published(_HUB, elements=358_337_791_296),
    "GLM-4.7-Flash": Published("pinned inventory of the published index in a public loader's tests", tensors=9_703),
    "GLM-4.5-Air": Published(_HUB, elements=110_468_824_832),
    "Qwen3-235B-A22B": Published("published index", tensors=36_945, bytes=470_187_269_120),
    "Qwen3-30B-A3B": Published("published index", bytes=61_064_245_248),
    "Nemotron-3-Nano-30B-A3B": Published(
        f"{_HUB}: 31,577,937,344 in BF16; correction biases of 23 layers in F32", elements=31_577_937_344 + 23 * 128
    ),
    "Nemotron-3.5-Lightning-30B-A3B": Published(
        "safetensors totals quoted in a public catalogue's tests: BF16 32,913,263,168, F32 3,072",
        bytes=2 * 32_913_263_168 + 4 * 3_072,
        elements=32_913_263_168 + 3_072,
    ),
    "Nemotron-3-Super-120B-A12B": Published(
        f"{_HUB}: BF16 123,611,012,096, F32 20,992",
        bytes=2 * 123_611_012_096 + 4 * 20_992,
        elements=123_611_012_096 + 20_992,
    ),
    "Nemotron-3-Ultra-550B-A55B": Published(
        "safetensors total quoted in a public calculator: 560,524,578,816 in BF16; 1,121 GB in a deployment's notes",
        bytes=2 * 560_524_578_816 + 4 * 49 * 512,
        elements=560_524_578_816 + 49 * 512,
    ),
    "Gemma-4-26B-A4B-text-fused": Published(
        "report of both shards' headers at revision 4d7ae49: 1,013 tensors of 51,611,872,412 bytes, which is the "
        "index's total_size, 356 of them the tower's and its projection's",
        tensors=1_013 - 356,
        bytes=51_611_872_412 - 1_145_588_832,
        elements=25_233_141_790,
    ),
    "MiniMax-M2.5": Published(f"{_HUB}; bytes of its twin MiniMax-M2", bytes=230_121_630_720, elements=228_703_644_928),
    "Mixtral-8x7B-v0.1": Published("published index", bytes=93_405_585_408),
    "Mixtral-8x22B-v0.1": Published("header dump", tensors=1_739, bytes=281_241_268_224),
}
