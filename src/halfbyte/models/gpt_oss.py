"""gpt-oss: on paper only, enough to plan for. Biases everywhere, attention sinks, a window in every other layer.

Sources: config.json of gpt-oss-120b; transformers 5.23 `GptOssConfig`. The published experts are MXFP4 stacks under
other names than those used here.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.roles import Role

WINDOW = 128
"""transformers `GptOssConfig`, where the key is left out."""


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(),
        indexers=frozenset(),
        **reading.sizes(config, layers, ("sliding_attention", "full_attention"), WINDOW),
        experts=positive(config, "num_local_experts"),
        expert_width=width,
        shared_width=0,
        dense_width=width,
        attention_bias=True,
        router_bias=True,
        expert_bias=True,
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch, sinks=True)
    yield from blocks.router(arch, name="router", bias=("router.bias",), bias_dtype="bf16")
    yield from blocks.experts(arch)
    for projection, width in (("gate_up_proj", 2 * arch.expert_width), ("down_proj", arch.hidden)):
        name = f"mlp.experts.{{e}}.{projection}.bias"
        yield Described(name, Role.ROUTED_EXPERT, (width,), projection, count=arch.experts)


FAMILY = Family(
    "gpt_oss",
    read,
    tensors,
    "num_local_experts",
    engines={
        "vllm": Support(
            asks_router=False, router_known=Known("read", "vLLM at 0025d69, gpt_oss.py: a plain torch linear")
        ),
        "sglang": Support(
            asks_router=False, router_known=Known("read", "SGLang at 009c680, gpt_oss.py: quant_config=None")
        ),
    },
    paper_only="its experts are published as MXFP4 stacks with biases, for which no loader in NVFP4 is known: vLLM "
    "0.26.0 takes BF16 stacks (gpt_oss.py, _load_weights_other) and MXFP4 as it is; SGLang's was not read",
)
