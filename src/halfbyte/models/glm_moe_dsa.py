"""GLM-5, 5.1 and 5.2: DeepSeek-V3.2's attention and experts; from 5.2 on layers share a selection (IndexShare).

The MTP layer borrows embedding and head of the model. Sources: config.json and published weight maps of GLM-5.1, 5.2,
5.2-FP8 and 5.2-NVFP4; transformers 5.23 `models/glm_moe_dsa`.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.models import blocks, deepseek_v3, deepseek_v32, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.family import Described, Known, SparseAttention, Support
from halfbyte.models.glm_answers import GlmFormat
from halfbyte.models.llama_cpp import MLPS, Key, LlamaCpp, indexer_keys
from halfbyte.models.splitting import GLM_SPECIALS, THREE_DIGITS


def read(config: Config) -> Architecture:
    return replace(deepseek_v32.read(config), own_mtp_head=False)


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.mla(arch)
    if arch.has_indexer(number):
        yield from blocks.indexer(arch)
    yield from deepseek_v3.mlp(arch, number)
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    assert arch.mla is not None
    yield from indexer_keys(config, arch)
    yield "rope_dimension_count", int(arch.mla.rope * reading.rope_parameters(config).get("partial_rotary_factor", 1.0))
    yield "indexer_types", [layer in arch.indexers for layer in range(arch.layers)]


FAMILY = deepseek_v32.FAMILY.but(
    model_type="glm_moe_dsa",
    aliases=(),
    read=read,
    tensors=tensors,
    engines={
        "vllm": Support(
            file="deepseek_v2",
            since=(0, 23),
            since_known=Known("read", "NVIDIA's model card of GLM-5.2-NVFP4"),
            reasoning_parser="glm45",
            tool_parser="glm47",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; deepseek_v2.py of 0.33.0 read"),
        ),
        "sglang": Support(
            file="deepseek_v2",
            since=(0, 5, 13),
            since_known=Known("read", "posted server logs of GLM-5.2 (0.5.13.post1)"),
            reasoning_parser="glm45",
            tool_parser="glm47",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, deepseek_v2.py"),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "its first release with the architecture")),
    },
    sparse_attention=SparseAttention(index_rotation="interleaved", shares=True),
    llama_cpp=LlamaCpp(
        "glm-dsa", "GLM_DSA", keys, mtp=True, scaled=MLPS, splitting={THREE_DIGITS: "glm4"}, specials=GLM_SPECIALS
    ),
    answers=GlmFormat,
)
