"""Llama 4 (Scout, Maverick): on paper only, enough to plan for. A vision tower beside the text model.

Sources: config.json of both; transformers 5.23 `Llama4TextConfig` and `Llama4VisionConfig`.
"""

from collections.abc import Iterator

from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    step = positive(config, "interleave_moe_layer_step", 1)
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(i for i in range(layers) if (i + 1) % step),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=positive(config, "num_local_experts"),
        expert_width=width,
        shared_width=width,
        dense_width=positive(config, "intermediate_size_mlp"),
    )


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and projector, by their matrices."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "vision_output_dim" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    layers, out = positive(vision, "num_hidden_layers"), positive(vision, "projector_output_dim")
    projector = wide * positive(vision, "projector_input_dim") + positive(vision, "projector_input_dim") * out
    projector += positive(vision, "vision_output_dim") * text_hidden
    return 2 * (layers * (4 * hidden * hidden + 2 * hidden * wide) + projector)


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    if arch.is_moe(number):
        yield from blocks.router(arch, name="router")
        yield from blocks.experts(arch)
        yield from blocks.shared_expert(arch)
    else:
        yield from blocks.dense_mlp(arch)


FAMILY = Family(
    "llama4",
    read,
    tensors,
    "num_local_experts",
    aliases=("llama4_text",),
    engines={
        "vllm": Support(asks_router=False, router_known=Known("read", "vLLM at 0121c95, llama4.py: quant_config=None")),
        "sglang": Support(
            asks_router=False, router_known=Known("read", "SGLang at 003cb21, llama4.py: quant_config=None")
        ),
    },
    paper_only="its experts are stacks under feed_forward that take their input times the score; transformers "
    "multiplies every token by every expert, which is not streamed here (their NVFP4 stacks are gpt_oss's: vLLM loads "
    "them by its pull request 21499, SGLang stops by its pull request 35032)",
    vision_bytes=vision_bytes,
)
