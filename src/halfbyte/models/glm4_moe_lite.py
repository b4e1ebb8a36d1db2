"""GLM-4.7-Flash: DeepSeek-V3's attention and experts in GLM's clothes: its tokenizer, its answers, an MTP layer.

Sources: transformers 5.23 `models/glm4_moe_lite` (whose defaults are the published sizes) and its config.json; the
published index has 9,703 tensors, embedding and head of the MTP layer among them; llama.cpp's conversion/glm.py and
src/models/deepseek2.cpp; for the parsers' names SGLang's function_call_parser.py and published vLLM commands.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.models import deepseek_v3
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.family import Known, Support
from halfbyte.models.glm_answers import GlmFormat
from halfbyte.models.llama_cpp import Key, LlamaCpp, latent_keys, mtp_keys
from halfbyte.models.splitting import GLM_SPECIALS, THREE_DIGITS


def read(config: Config) -> Architecture:
    """As DeepSeek-V3; where config.json says nothing about dense layers, transformers makes the first one so."""
    arch = deepseek_v3.read(config)
    unstated = config.get("mlp_layer_types") is None and config.get("first_k_dense_replace") is None
    return replace(arch, dense=frozenset({0})) if unstated else arch


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    """The gating function is stated although the converter leaves it to a guess by the published sizes."""
    yield from latent_keys(config, arch)
    yield "expert_gating_func", "sigmoid"
    yield from mtp_keys(config, arch)


FAMILY = deepseek_v3.FAMILY.but(
    model_type="glm4_moe_lite",
    read=read,
    engines={
        "vllm": Support(
            file="glm4_moe_lite",
            reasoning_parser="glm45",
            tool_parser="glm47",
            asks_router=False,
            router_known=Known("read", "vLLM 0.33.0, glm4_moe_lite.py: its MoE is Glm4MoE of glm4_moe.py"),
        ),
        "sglang": Support(
            file="glm4_moe_lite",
            reasoning_parser="glm45",
            tool_parser="glm47",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, glm4_moe_lite.py: the router is a plain parameter"),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "its first release with the architecture")),
    },
    # gguf 0.19 gives deepseek2 no names of an MTP layer; those of glm-dsa are the same otherwise
    llama_cpp=LlamaCpp("deepseek2", "GLM_DSA", keys, mtp=True, splitting={THREE_DIGITS: "glm4"}, specials=GLM_SPECIALS),
    answers=GlmFormat,
)
