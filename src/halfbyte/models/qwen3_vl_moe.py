"""Qwen3-VL MoE: Qwen3 MoE's text model under `model.language_model.`, beside a vision tower; its experts are published
as stacks whose inputs run down, [E, hidden, 2 width] and [E, width, hidden].

With text alone, its three axes of positions are one, and it is computed as Qwen3 MoE. Sources: transformers 5.23
`models/qwen3_vl_moe` and its conversion_mapping.py; vLLM 0.26.0, qwen3_vl_moe.py and qwen3_vl.py (names), which takes
the experts one by one as Qwen3 MoE's.
"""

from halfbyte.models import qwen3_5_moe, qwen3_moe
from halfbyte.models.family import Known, Support, Wrapping

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
    llama_cpp=None,
    only_wrapped=True,
    turned_stacks=True,
    vision_bytes=qwen3_5_moe.vision_bytes,
    wrapping=Wrapping({"model.": "model.language_model."}, ("model.visual.",)),
)
