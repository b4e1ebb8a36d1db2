"""GLM-4.5, 4.6 and 4.7 (also Air): grouped queries with biases, leading dense layers, a shared expert, an MTP layer.

Sources: config.json and element totals of GLM-4.7 and GLM-4.5-Air; transformers 5.23 `models/glm4_moe`.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, deepseek_v3, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.glm_answers import GlmFormat
from halfbyte.models.llama_cpp import Key, LlamaCpp, leading_dense, mtp_keys, need
from halfbyte.models.splitting import GLM_SPECIALS, THREE_DIGITS


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "moe_intermediate_size")
    announced = reading.announced_mtp(config, "num_nextn_predict_layers")
    # copies of the config without the key (not with 0) mean the same files
    unstated = config.get("num_nextn_predict_layers") is None
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=1 if unstated else announced,
        mtp_announced=announced,
        dense=reading.leading_dense(config, layers),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=reading.shared_width(config, width),
        dense_width=positive(config, "intermediate_size"),
        attention_bias=bool(config.get("attention_bias")),
        qk_norm="per-head" if config.get("use_qk_norm") else "",
        router_bias=True,
        own_mtp_head=True,
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    yield from deepseek_v3.mlp(arch, number)
    if arch.is_mtp(number):
        yield from blocks.mtp(arch)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    yield "rope_dimension_count", int(arch.head_dim * reading.rope_parameters(config).get("partial_rotary_factor", 0.5))
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_count", need(config, "n_shared_experts")
    yield "leading_dense_block_count", leading_dense(arch)
    yield "expert_gating_func", "sigmoid"
    yield "expert_weights_scale", need(config, "routed_scaling_factor")
    yield "expert_weights_norm", need(config, "norm_topk_prob")
    yield from mtp_keys(config, arch)


FAMILY = Family(
    model_type="glm4_moe",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    needs=deepseek_v3.ROUTING_KEYS,
    engines={
        "vllm": Support(
            file="glm4_moe",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H100; glm4_moe.py of 0.33.0 read"),
        ),
        "sglang": Support(
            file="glm4_moe",
            asks_router=False,
            router_known=Known("read", "SGLang 0.5.23, glm4_moe.py"),
        ),
    },
    llama_cpp=LlamaCpp("glm4moe", "GLM4_MOE", keys, mtp=True, splitting={THREE_DIGITS: "glm4"}, specials=GLM_SPECIALS),
    answers=GlmFormat,
)
