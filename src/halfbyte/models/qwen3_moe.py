"""Qwen3 MoE (30B-A3B, 235B-A22B, Coder): grouped queries with a norm per head, experts in (nearly) every layer.

Sources: config.json and weight maps of Qwen3-30B-A3B and Qwen3-235B-A22B; transformers 5.23 `models/qwen3_moe`.
"""

from collections.abc import Iterator

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp
from halfbyte.models.roles import Role
from halfbyte.models.splitting import ONE_DIGIT


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=_dense(config, layers),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=positive(config, "moe_intermediate_size"),
        shared_width=0,
        dense_width=positive(config, "intermediate_size"),
        attention_bias=bool(config.get("attention_bias")),
        qk_norm="per-head",
    )


def _dense(config: Config, layers: int) -> frozenset[int]:
    found = reading.listed_dense(config, layers)
    if found is not None:
        return found
    listed, step = config.get("mlp_only_layers") or [], max(natural(config, "decoder_sparse_step", 1), 1)
    if not isinstance(listed, list):
        raise CheckpointError(f"config.json: mlp_only_layers is {str(listed)[:80]!r}, wanted a list")
    return frozenset(i for i in range(layers) if i in listed or (i + 1) % step)


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    if arch.is_moe(number):
        yield from blocks.router(arch)
        yield from blocks.experts(arch)
    else:
        yield from blocks.dense_mlp(arch)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    if arch.dense:
        raise UnsupportedError(f"layer {min(arch.dense)} is dense: llama.cpp's qwen3moe has experts in every layer")
    yield "expert_feed_forward_length", arch.expert_width


FAMILY = Family(
    model_type="qwen3_moe",
    read=read,
    tensors=tensors,
    experts_key="num_experts",
    engines={
        # GateLinear(quant_config=quant_config): a list without the router stops the load with a size mismatch
        "vllm": Support(
            file="qwen3_moe",
            asks_router=True,
            router_known=Known("run", "vLLM 0.26.0 on one H100; qwen3_moe.py of 0.33.0 read"),
        ),
        # gate_quant_config is None unless the checkpoint is ModelSlim's
        "sglang": Support(
            file="qwen3_moe",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, qwen3_moe.py"),
        ),
    },
    llama_cpp=LlamaCpp(
        "qwen3moe",
        "QWEN3MOE",
        keys,
        scaled=frozenset({Role.ROUTED_EXPERT, Role.ATTENTION}),
        splitting={ONE_DIGIT: "qwen2"},
    ),
)
