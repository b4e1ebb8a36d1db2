"""Qwen3.5 and 3.6 MoE: Qwen3-Next's layers with the delta net's input projections stored one by one, experts in every
layer, a vision tower beside the text model.

The published checkpoints keep the text model under `model.language_model.` beside `model.visual.`, lm_head and mtp at
the top; transformers saves it alone, too (`qwen3_5_moe_text`).
Sources: transformers 5.23 `models/qwen3_5_moe` (whose defaults are Qwen3.5-35B-A3B's); vLLM 0.26.0, qwen3_5.py, and for
the MTP layer's names qwen3_5_mtp.py.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.models import blocks, qwen3_next
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Known, Support, Wrapping


def read(config: Config) -> Architecture:
    """As Qwen3-Next. Every layer has experts, so no width of a dense one is stated; MTP layers are stated or absent."""
    stated = {key: value for key, value in config.items() if key not in ("mlp_only_layers", "decoder_sparse_step")}
    arch = qwen3_next.read({"intermediate_size": positive(config, "moe_intermediate_size")} | stated)
    announced = min(natural(config, "mtp_num_hidden_layers", 0), 1)
    return replace(arch, mtp_layers=announced, mtp_announced=announced)


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    yield from qwen3_next.mtp(arch)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    return qwen3_next.layer(arch, number, joined=False)


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and merger, by their matrices, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "depth" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    merged = hidden * positive(vision, "spatial_merge_size", 2) ** 2
    merger = merged * (merged + positive(vision, "out_hidden_size", text_hidden))
    return 2 * (positive(vision, "depth") * (4 * hidden * hidden + 2 * hidden * wide) + merger)


_ROUTER = "qwen3_5.py: its MoE block is qwen3_next.py's, router and gate with quant_config=None"

FAMILY = qwen3_next.FAMILY.but(
    model_type="qwen3_5_moe",
    aliases=("qwen3_5_moe_text",),
    read=read,
    tensors=tensors,
    engines={
        "vllm": Support(
            file="qwen3_5",
            asks_router=False,
            router_known=Known("run", f"vLLM 0.26.0 on one H100, beside its tower (alone it has no class); {_ROUTER}"),
        ),
        "sglang": Support(
            file="qwen3_5",
            asks_router=False,
            router_known=Known(
                "read", "SGLang at 0201bc8: its MoE block is qwen2_moe.py's, router with quant_config=None"
            ),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "5.23.0, models/qwen3_5_moe")),
    },
    vision_bytes=vision_bytes,
    wrapping=Wrapping({"model.": "model.language_model."}, ("model.visual.",)),
)
