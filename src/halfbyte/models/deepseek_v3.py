"""DeepSeek-V3, V3.1 and R1: latent attention, leading dense layers, a shared expert, one MTP layer with its own head.

Sources: config.json and header dumps of DeepSeek-V3 and R1; transformers 5.23 `models/deepseek_v3`. Moonlight carries
the same model type without a query rank.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import LlamaCpp, latent_keys
from halfbyte.models.splitting import DEEPSEEK

ROUTING_KEYS = ("n_group", "topk_group", "routed_scaling_factor", "norm_topk_prob")


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "moe_intermediate_size")
    mtp = reading.announced_mtp(config, "num_nextn_predict_layers")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=mtp,
        mtp_announced=mtp,
        dense=reading.leading_dense(config, layers),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=reading.shared_width(config, width),
        dense_width=positive(config, "intermediate_size"),
        mla=reading.mla(config),
        router_bias=True,
        own_mtp_head=True,
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.mla(arch)
    yield from mlp(arch, number)
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


def mlp(arch: Architecture, number: int) -> Iterator[Described]:
    """The dense MLP, or router, experts and shared expert."""
    if not arch.is_moe(number):
        yield from blocks.dense_mlp(arch)
        return
    yield from blocks.router(arch, bias=("gate.e_score_correction_bias",))
    yield from blocks.experts(arch)
    yield from blocks.shared_expert(arch)


FAMILY = Family(
    model_type="deepseek_v3",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    needs=ROUTING_KEYS,
    engines={
        "vllm": Support(
            file="deepseek_v2",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; deepseek_v2.py of 0.33.0 read"),
        ),
        "sglang": Support(
            file="deepseek_v2",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, deepseek_v2.py"),
        ),
    },
    llama_cpp=LlamaCpp("deepseek2", "DEEPSEEK2", latent_keys, splitting={DEEPSEEK: "deepseek-v3"}),
)
