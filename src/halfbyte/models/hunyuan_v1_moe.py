"""Hunyuan-A13B: grouped queries with norms behind the rotary embedding, experts and one shared MLP in every layer, a
float32 router `wg`.

Sources: transformers 5.23 `models/hunyuan_v1_moe`; vLLM at 00f8d44, hunyuan_v1.py. No published
config.json was read: the sizes in the tests give 80.4 billion parameters, where its README says 80. For llama.cpp its
conversion/hunyuan.py at 051139f and src/models/hunyuan-moe.cpp at 358a4a0; its published vocabulary (hy.tiktoken, read
by remote code) is not read, a tokenizer.json is.
"""

from collections.abc import Iterator
from typing import Any

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp, routers_normalise
from halfbyte.models.reading import rope_parameters
from halfbyte.models.roles import Role
from halfbyte.models.splitting import ONE_DIGIT


def read(config: Config) -> Architecture:
    """Numbers that may be a list, one for each layer, must be the same in all. Raises UnsupportedError."""
    if config.get("use_cla"):
        raise UnsupportedError("config.json: use_cla is true: layers that share keys and values are not described")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise UnsupportedError("config.json: linears with biases are not described for hunyuan_v1_moe")
    alike = {key: _one(config, key) for key in ("moe_topk", "moe_intermediate_size", "num_shared_expert")}
    layers = reading.layer_count(config)
    width = positive(alike, "moe_intermediate_size", positive(config, "intermediate_size"))
    stated = _stated(config) | {"num_experts_per_tok": positive(alike, "moe_topk")}
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(),
        indexers=frozenset(),
        **reading.sizes(stated, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=positive(alike, "num_shared_expert", 1) * width,
        dense_width=width,
        qk_norm="per-head",
    )


def _stated(config: Config) -> Config:
    """With what transformers takes for keys that are left out."""
    hidden, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    return config | {
        "num_key_value_heads": positive(config, "num_key_value_heads", heads),
        "head_dim": positive(config, "head_dim", positive(config, "attention_head_dim", max(hidden // heads, 1))),
    }


def _one(config: Config, key: str) -> Any:
    value = config.get(key)
    if not isinstance(value, list):
        return value
    if not value or any(entry != value[0] for entry in value):
        raise UnsupportedError(f"config.json: {key} differs between layers, which is not described")
    return value[0]


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    for tensor in blocks.gqa(arch):
        yield tensor if not tensor.name.endswith("_norm.weight") else _norm(tensor)
    yield Described("mlp.gate.wg.weight", Role.ROUTER, (arch.experts, arch.hidden), "gate", "f32")
    yield from blocks.experts(arch)
    yield from blocks.swiglu(Role.SHARED_EXPERT, "mlp.shared_mlp", arch.hidden, arch.shared_width)


def _norm(tensor: Described) -> Described:
    name = "query_layernorm" if tensor.projection == "q_norm" else "key_layernorm"
    return Described(f"self_attn.{name}.weight", Role.ATTENTION, tensor.shape, name)


def usual(config: Config) -> Config:
    """The rotary embedding's fixed stretching (`alpha`) is another base; experts' width is the only one in GGUF."""
    stated, rope, width = _stated(config), rope_parameters(config), _one(config, "moe_intermediate_size")
    if rope.get("rope_type") == "dynamic" and rope.get("alpha"):
        head = stated["head_dim"]
        base = rope["rope_theta"] * rope["alpha"] ** (head / (head - 2))
        rope = {"rope_type": "default", "rope_theta": base}
    widths = {} if width is None else {"intermediate_size": width}
    return {**stated, "rope_parameters": rope} | widths


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    routers_normalise(config)
    yield "expert_shared_feed_forward_length", arch.shared_width
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_count", arch.shared_width // arch.expert_width
    yield "rope_scaling_type", "none"


FAMILY = Family(
    model_type="hunyuan_v1_moe",
    read=read,
    tensors=tensors,
    top_k_key="moe_topk",
    experts_key="num_experts",
    engines={
        "vllm": Support(
            file="hunyuan_v1",
            asks_router=False,
            router_known=Known(
                "run", "vLLM 0.26.0 on one H100; hunyuan_v1.py: the router is built with quant_config=None"
            ),
        ),
        "sglang": Support(
            file="hunyuan",
            asks_router=False,
            router_known=Known("read", "SGLang at 0818561, hunyuan.py: the router is built with quant_config=None"),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "5.23.0, models/hunyuan_v1_moe")),
    },
    llama_cpp=LlamaCpp(
        "hunyuan-moe",
        "HUNYUAN_MOE",
        keys,
        scaled=frozenset({Role.ATTENTION}),
        splitting={ONE_DIGIT: "hunyuan"},
        usual=usual,
    ),
)
