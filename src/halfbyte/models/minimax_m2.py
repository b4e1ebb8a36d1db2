"""MiniMax-M2 and M2.5: grouped queries with a norm over all heads, a float32 router with a bias, Mixtral's names.

The MTP modules that config.json announces were never published. Sources: config.json of MiniMax-M2.5, the published
totals; transformers 5.23 `models/minimax_m2`, which saves experts and router under `mlp`.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp, need
from halfbyte.models.splitting import CAMEL

CONTAINERS = ("block_sparse_moe", "mlp")


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=reading.announced_mtp(config, "num_nextn_predict_layers", "num_mtp_modules"),
        dense=reading.listed_dense(config, layers) or frozenset(),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=0,
        dense_width=width,
        attention_bias=bool(config.get("attention_bias")),
        qk_norm="all-heads",
        router_bias=True,
        own_mtp_head=True,
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    yield from blocks.router(
        arch, CONTAINERS, dtype="f32", bias=("e_score_correction_bias", "gate.e_score_correction_bias")
    )
    yield from blocks.experts(arch, CONTAINERS, ("w1", "w3", "w2"))
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    yield "expert_feed_forward_length", arch.expert_width
    yield "rope_dimension_count", need(config, "rotary_dim")


FAMILY = Family(
    model_type="minimax_m2",
    read=read,
    tensors=tensors,
    experts_key="num_local_experts",
    engines={
        "vllm": Support(
            file="minimax_m2",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; minimax_m2.py of 0.33.0 read"),
        ),
        "sglang": Support(
            file="minimax_m2",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, minimax_m2.py"),
        ),
    },
    llama_cpp=LlamaCpp("minimax-m2", "MINIMAXM2", keys, splitting={CAMEL: "minimax-m2"}),
)
