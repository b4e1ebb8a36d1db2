"""Kimi K2.5 and K2.6: Kimi K2 under `language_model.`, beside a vision tower (MoonViT) and its projector. Experts are
published in INT4. Sources: config.json of Kimi-K2.5; for the names vLLM 0.26.0, kimi_k25.py (modules and mapper).
"""

from halfbyte.models import kimi_k2
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Wrapping


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and projector, by their matrices, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "vt_hidden_size" not in vision:
        return 0
    hidden, wide = positive(vision, "vt_hidden_size"), positive(vision, "vt_intermediate_size")
    layers, merged = positive(vision, "vt_num_hidden_layers"), 4 * hidden  # 2 x 2 patches become one
    projector = merged * (merged + positive(vision, "text_hidden_size", hidden))
    return 2 * (layers * (4 * hidden * hidden + 2 * hidden * wide) + projector)


FAMILY = kimi_k2.FAMILY.but(
    model_type="kimi_k25",
    vision_bytes=vision_bytes,
    only_wrapped=True,
    wrapping=Wrapping(
        {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."},
        ("vision_tower.", "mm_projector."),
    ),
)
