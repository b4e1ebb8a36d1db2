"""Qwen3-VL MoE: Qwen3 MoE's text model under `model.language_model.`, beside a vision tower; its experts are published
as stacks whose inputs run down, [E, hidden, 2 width] and [E, width, hidden].

With text alone, its three axes of positions are one, and it is computed as Qwen3 MoE. Sources: transformers 5.23
`models/qwen3_vl_moe` and its conversion_mapping.py; vLLM 0.26.0, qwen3_vl_moe.py and qwen3_vl.py (names), which takes
the experts one by one as Qwen3 MoE's; for llama.cpp its conversion/qwen3vl.py at 06e514f and src/models/qwen3vlmoe.cpp
at 1551ec3, whose graph gives its experts no scales.
"""

from collections.abc import Iterator

from halfbyte.models import qwen3_5_moe, qwen3_moe
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.family import Known, Support, Wrapping
from halfbyte.models.llama_cpp import Key, LlamaCpp, routers_normalise
from halfbyte.models.reading import rope_parameters
from halfbyte.models.roles import Role
from halfbyte.models.splitting import ONE_DIGIT

SECTIONS = [24, 20, 20, 0]
"""Of the rotary embedding's three positions, where config.json states none (transformers' default)."""


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    """deepstack: layers that also take in what the tower's middle layers make of a picture."""
    routers_normalise(config)
    yield from qwen3_moe.keys(config, arch)
    stated = rope_parameters(config).get("mrope_section")
    qwen3_5_moe.check_sections(SECTIONS if stated is None else stated, arch)
    if stated is None:
        yield "rope_dimension_sections", SECTIONS
    yield "num_deepstack_layers", len((config.get("vision_config") or {}).get("deepstack_visual_indexes") or [])


_ROUTER = "qwen3_vl_moe.py: its layers are qwen3_moe.py's, whose router takes the quant_config"

FAMILY = qwen3_moe.FAMILY.but(
    model_type="qwen3_vl_moe",
    aliases=("qwen3_vl_moe_text",),
    computed_as="qwen3_moe",
    engines={
        "vllm": Support(
            file="qwen3_vl_moe", asks_router=True, router_known=Known("run", f"vLLM 0.26.0 on one H100, {_ROUTER}")
        ),
        "sglang": Support(
            file="qwen3_vl_moe",
            asks_router=False,
            router_known=Known("read", "SGLang at 0e0ee12, qwen3_vl_moe.py: its layers are qwen3_moe.py's"),
        ),
    },
    llama_cpp=LlamaCpp(
        "qwen3vlmoe",
        "QWEN3VLMOE",
        keys,
        scaled=frozenset({Role.ATTENTION}),
        splitting={ONE_DIGIT: "qwen2"},
        beside_towers=True,
    ),
    only_wrapped=True,
    turned_stacks=True,
    vision_bytes=qwen3_5_moe.vision_bytes,
    wrapping=Wrapping({"model.": "model.language_model."}, ("model.visual.",)),
)
