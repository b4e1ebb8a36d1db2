"""Full-size synthetic safetensors headers (names, dtypes, shapes; no data) of published MoE checkpoints.

`header_set(name)` gives the headers and `role_set(name)` the true role of every tensor. Roles are not derived from
names: each tensor is written together with its role, so the labels can judge a classifier that reads names.
`expected.py` computes the totals of every set a second time, from the config alone.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from .configs import CONFIGS, Config

Header = tuple[str, tuple[int, ...]]
Label = tuple[str, bool]

ROLES = (
    "embedding",
    "lm_head",
    "norm",
    "attention",
    "indexer",
    "router",
    "dense_mlp",
    "shared_expert",
    "routed_expert",
    "mtp",
)


@dataclass(frozen=True)
class Variant:
    """How one set departs from the plain per-expert BF16 layout of its config."""

    fp8: bool = False
    nvfp4: bool = False
    fused: bool = False
    mtp: bool = True


# In memory, transformers 5 keeps experts fused and has no MTP layer; "-fused-mtp" is the same with the MTP layer kept.
_VARIANTS: dict[str, Variant] = {
    "GLM-5.2-FP8": Variant(fp8=True),
    "GLM-5.2-NVFP4": Variant(nvfp4=True),
    "GLM-5.2-fused": Variant(fused=True, mtp=False),
    "GLM-5.2-fused-mtp": Variant(fused=True),
    "DeepSeek-V3": Variant(fp8=True),
    "DeepSeek-V3.2": Variant(fp8=True),
    "Kimi-K2-Instruct": Variant(fp8=True),
    "Qwen3-235B-A22B-fused": Variant(fused=True),
    "Qwen3-30B-A3B-fused": Variant(fused=True),
    "MiniMax-M2.5": Variant(fp8=True),
    "MiniMax-M2.5-fused": Variant(fused=True),
    "Mixtral-8x7B-v0.1-fused": Variant(fused=True),
    "Mixtral-8x22B-v0.1-fused": Variant(fused=True),
}


def variant(name: str) -> Variant:
    """Return the storage variant of a set."""
    return _VARIANTS.get(name, Variant())


@dataclass
class _Writer:
    """Collects tensors and writes the storage form (BF16, block FP8 or NVFP4) of each linear layer."""

    variant: Variant
    headers: dict[str, Header] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)

    def tensor(self, name: str, shape: tuple[int, ...], label: Label, dtype: str = "BF16") -> None:
        """Add one tensor that no variant quantizes."""
        if name in self.headers:
            raise ValueError(f"duplicate tensor {name}")
        self.headers[name] = (dtype, shape)
        self.labels[name] = label

    def linear(self, module: str, rows: int, columns: int, label: Label) -> None:
        """Add the weight of a linear layer that FP8 checkpoints, and NVFP4 ones for main experts, quantize."""
        if self.variant.fp8:
            self.tensor(f"{module}.weight", (rows, columns), label, "F8_E4M3")
            self.tensor(f"{module}.weight_scale_inv", (-(-rows // 128), -(-columns // 128)), label, "F32")
        elif self.variant.nvfp4 and label == ("routed_expert", False):
            self.tensor(f"{module}.weight", (rows, columns // 2), label, "U8")
            self.tensor(f"{module}.weight_scale", (rows, columns // 16), label, "F8_E4M3")
            self.tensor(f"{module}.weight_scale_2", (), label, "F32")
            self.tensor(f"{module}.input_scale", (), label, "F32")
        else:
            self.tensor(f"{module}.weight", (rows, columns), label)


def _mla(out: _Writer, cfg: Config, prefix: str, mtp: bool) -> None:
    """Multi-head latent attention of DeepSeek-V3 and GLM-5."""
    label = ("attention", mtp)
    hidden, heads = cfg["hidden_size"], cfg["num_attention_heads"]
    q_rank, kv_rank, rope = cfg["q_lora_rank"], cfg["kv_lora_rank"], cfg["qk_rope_head_dim"]
    nope, value = cfg["qk_nope_head_dim"], cfg["v_head_dim"]
    out.linear(f"{prefix}.q_a_proj", q_rank, hidden, label)
    out.tensor(f"{prefix}.q_a_layernorm.weight", (q_rank,), label)
    out.linear(f"{prefix}.q_b_proj", heads * (nope + rope), q_rank, label)
    out.linear(f"{prefix}.kv_a_proj_with_mqa", kv_rank + rope, hidden, label)
    out.tensor(f"{prefix}.kv_a_layernorm.weight", (kv_rank,), label)
    out.linear(f"{prefix}.kv_b_proj", heads * (nope + value), kv_rank, label)
    out.linear(f"{prefix}.o_proj", hidden, heads * value, label)


def _indexer(out: _Writer, cfg: Config, prefix: str, mtp: bool) -> None:
    """Sparse-attention indexer of DeepSeek-V3.2 and GLM-5; its k_norm is a LayerNorm with a bias."""
    label = ("indexer", mtp)
    heads, width = cfg["index_n_heads"], cfg["index_head_dim"]
    norm_dtype = "F32" if cfg["model_type"] == "deepseek_v32" else "BF16"
    out.linear(f"{prefix}.wq_b", heads * width, cfg["q_lora_rank"], label)
    out.linear(f"{prefix}.wk", width, cfg["hidden_size"], label)
    out.tensor(f"{prefix}.k_norm.weight", (width,), label, norm_dtype)
    out.tensor(f"{prefix}.k_norm.bias", (width,), label, norm_dtype)
    out.tensor(f"{prefix}.weights_proj.weight", (heads, cfg["hidden_size"]), label)


def _gqa(out: _Writer, cfg: Config, prefix: str, mtp: bool) -> None:
    """Grouped-query attention, with q/k/v biases and q/k norms where the family has them."""
    label = ("attention", mtp)
    hidden, heads, kv_heads = cfg["hidden_size"], cfg["num_attention_heads"], cfg["num_key_value_heads"]
    width = cfg.get("head_dim") or hidden // heads
    for projection, rows in (("q", heads * width), ("k", kv_heads * width), ("v", kv_heads * width)):
        out.linear(f"{prefix}.{projection}_proj", rows, hidden, label)
        if cfg.get("attention_bias"):
            out.tensor(f"{prefix}.{projection}_proj.bias", (rows,), label)
    out.linear(f"{prefix}.o_proj", hidden, heads * width, label)
    if cfg["model_type"] == "minimax_m2":
        out.tensor(f"{prefix}.q_norm.weight", (heads * width,), label)
        out.tensor(f"{prefix}.k_norm.weight", (kv_heads * width,), label)
    elif cfg["model_type"] == "qwen3_moe" or cfg.get("use_qk_norm"):
        out.tensor(f"{prefix}.q_norm.weight", (width,), label)
        out.tensor(f"{prefix}.k_norm.weight", (width,), label)


def _swiglu(out: _Writer, prefix: str, hidden: int, width: int, label: Label, names: tuple[str, str, str]) -> None:
    """Gate, down and up projections of one MLP or expert; `names` gives them in the order gate, up, down."""
    out.linear(f"{prefix}.{names[0]}", width, hidden, label)
    out.linear(f"{prefix}.{names[1]}", width, hidden, label)
    out.linear(f"{prefix}.{names[2]}", hidden, width, label)


_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def _moe(out: _Writer, cfg: Config, layer: str, mtp: bool) -> None:
    """Router, routed experts and shared expert of one sparse layer."""
    family, hidden = cfg["model_type"], cfg["hidden_size"]
    mixtral_names = family in ("mixtral", "minimax_m2")
    experts = cfg.get("n_routed_experts") or cfg.get("num_experts") or cfg.get("num_local_experts")
    width = cfg.get("moe_intermediate_size") or cfg["intermediate_size"]
    block = f"{layer}.{'block_sparse_moe' if mixtral_names and not out.variant.fused else 'mlp'}"
    router_dtype = "F32" if family == "minimax_m2" else "BF16"
    out.tensor(f"{block}.gate.weight", (experts, hidden), ("router", mtp), router_dtype)
    if family == "minimax_m2":
        out.tensor(f"{block}.e_score_correction_bias", (experts,), ("router", mtp), "F32")
    elif "n_routed_experts" in cfg:
        out.tensor(f"{block}.gate.e_score_correction_bias", (experts,), ("router", mtp), "F32")
    routed = ("routed_expert", mtp)
    if out.variant.fused:
        out.tensor(f"{block}.experts.gate_up_proj", (experts, 2 * width, hidden), routed)
        out.tensor(f"{block}.experts.down_proj", (experts, hidden, width), routed)
    else:
        names = ("w1", "w3", "w2") if mixtral_names else _PROJECTIONS
        for expert in range(experts):
            _swiglu(out, f"{block}.experts.{expert}", hidden, width, routed, names)
    if cfg.get("n_shared_experts"):
        shared_width = width * cfg["n_shared_experts"]
        _swiglu(out, f"{block}.shared_experts", hidden, shared_width, ("shared_expert", mtp), _PROJECTIONS)


def _is_sparse(cfg: Config, index: int) -> bool:
    """Whether decoder layer `index` has routed experts."""
    if "first_k_dense_replace" in cfg:
        return index >= cfg["first_k_dense_replace"]
    if "mlp_only_layers" in cfg:
        return index not in cfg["mlp_only_layers"] and (index + 1) % cfg["decoder_sparse_step"] == 0
    return True


def _layer(out: _Writer, cfg: Config, index: int) -> None:
    """One decoder layer; an index at or past `num_hidden_layers` is an MTP layer."""
    layer, mtp, hidden = f"model.layers.{index}", index >= cfg["num_hidden_layers"], cfg["hidden_size"]
    out.tensor(f"{layer}.input_layernorm.weight", (hidden,), ("norm", mtp))
    out.tensor(f"{layer}.post_attention_layernorm.weight", (hidden,), ("norm", mtp))
    if "kv_lora_rank" in cfg:
        _mla(out, cfg, f"{layer}.self_attn", mtp)
    else:
        _gqa(out, cfg, f"{layer}.self_attn", mtp)
    if "index_n_heads" in cfg and (mtp or "indexer_types" not in cfg or cfg["indexer_types"][index] == "full"):
        _indexer(out, cfg, f"{layer}.self_attn.indexer", mtp)
    if _is_sparse(cfg, index):
        _moe(out, cfg, layer, mtp)
    else:
        _swiglu(out, f"{layer}.mlp", hidden, cfg["intermediate_size"], ("dense_mlp", mtp), _PROJECTIONS)
    if mtp:
        out.tensor(f"{layer}.eh_proj.weight", (hidden, 2 * hidden), ("mtp", True))
        for norm in ("enorm", "hnorm", "shared_head.norm"):
            out.tensor(f"{layer}.{norm}.weight", (hidden,), ("norm", True))
        if cfg["model_type"] != "glm_moe_dsa":
            out.tensor(f"{layer}.embed_tokens.weight", (cfg["vocab_size"], hidden), ("embedding", True))
            out.tensor(f"{layer}.shared_head.head.weight", (cfg["vocab_size"], hidden), ("lm_head", True))


@lru_cache(maxsize=2)
def _build(name: str) -> _Writer:
    return _write(CONFIGS[name], variant(name))


def _write(cfg: Config, stored: Variant) -> _Writer:
    out = _Writer(stored)
    out.tensor("model.embed_tokens.weight", (cfg["vocab_size"], cfg["hidden_size"]), ("embedding", False))
    layers = cfg["num_hidden_layers"]
    if out.variant.mtp:
        layers += cfg.get("num_nextn_predict_layers", 0)
    for index in range(layers):
        _layer(out, cfg, index)
    out.tensor("model.norm.weight", (cfg["hidden_size"],), ("norm", False))
    out.tensor("lm_head.weight", (cfg["vocab_size"], cfg["hidden_size"]), ("lm_head", False))
    return out


def header_set(name: str) -> dict[str, Header]:
    """Return `{tensor name: (safetensors dtype, stored shape)}` of one checkpoint; names are the keys of `CONFIGS`."""
    return dict(_build(name).headers)


def headers_for(cfg: Config, stored: Variant) -> dict[str, Header]:
    """As `header_set`, for a config of one's own: a published one made small, say."""
    return _write(cfg, stored).headers


def role_set(name: str) -> dict[str, Label]:
    """Return `{tensor name: (role, belongs to an MTP layer)}`; scale tensors carry the role of their weight."""
    return dict(_build(name).labels)
