"""DeepSeek-V3.2: DeepSeek-V3 with a sparse-attention indexer in every layer, its k_norm in float32.

Sources: config.json and the element total of the published files; transformers 5.23 `models/deepseek_v32`.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.models import blocks, deepseek_v3, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.family import Described, Known, SparseAttention, Support
from halfbyte.models.llama_cpp import MLPS, LlamaCpp, indexer_keys
from halfbyte.models.splitting import DEEPSEEK


def read(config: Config) -> Architecture:
    arch = deepseek_v3.read(config)
    return replace(arch, indexers=reading.indexer_layers(config, arch.layers), indexer=reading.indexer(config))


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.mla(arch)
    if arch.has_indexer(number):
        yield from blocks.indexer(arch, norm_dtype="f32")
    yield from deepseek_v3.mlp(arch, number)
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


FAMILY = deepseek_v3.FAMILY.but(
    model_type="deepseek_v32",
    aliases=("deepseek_v3_2",),
    read=read,
    tensors=tensors,
    needs=(*deepseek_v3.ROUTING_KEYS, "index_topk"),
    engines={
        "vllm": Support(
            file="deepseek_v2",
            asks_router=False,
            router_known=Known("read", "vLLM 0.33.0, vllm/models/deepseek_v32: deepseek_v2.DeepseekV2MoE"),
        ),
        "sglang": Support(
            file="deepseek_v2", asks_router=False, router_known=Known("read", "SGLang 0.5.23, deepseek_v2.py")
        ),
    },
    sparse_attention=SparseAttention(index_rotation="halves", shares=False),
    llama_cpp=LlamaCpp(
        "deepseek32", "GLM_DSA", indexer_keys, mtp=True, scaled=MLPS, splitting={DEEPSEEK: "deepseek-v3"}
    ),
)
