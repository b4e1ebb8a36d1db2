"""Mixtral 8x7B and 8x22B: grouped queries, experts in every layer, w1, w3 and w2 for gate, up and down.

Sources: config.json and weight maps of both; transformers 5.23 `models/mixtral`, which saves experts and router under
`mlp`. A `sliding_window` (8x7B had one at first) is every layer's.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp
from halfbyte.models.roles import Role

CONTAINERS = ("block_sparse_moe", "mlp")


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    everywhere = "full_attention" if config.get("sliding_window") is None else "sliding_attention"
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=reading.listed_dense(config, layers) or frozenset(),
        indexers=frozenset(),
        **reading.sizes(config, layers, unstated=(everywhere,)),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=0,
        dense_width=width,
        attention_bias=bool(config.get("attention_bias")),
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    yield from blocks.router(arch, CONTAINERS)
    yield from blocks.experts(arch, CONTAINERS, ("w1", "w3", "w2"))


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    yield "vocab_size", arch.vocab
    yield "rope_dimension_count", arch.head_dim


FAMILY = Family(
    model_type="mixtral",
    read=read,
    tensors=tensors,
    experts_key="num_local_experts",
    engines={
        "vllm": Support(
            file="mixtral",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; mixtral.py of 0.33.0 read"),
        ),
        "sglang": Support(
            file="mixtral",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, mixtral.py"),
        ),
    },
    llama_cpp=LlamaCpp(
        "llama",
        "LLAMA",
        keys,
        scaled=frozenset({Role.ROUTED_EXPERT, Role.ATTENTION}),
        rope_pairs=True,
        vocabulary="llama",
    ),
)
