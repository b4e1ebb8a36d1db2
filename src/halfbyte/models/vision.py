"""A vision tower beside the language model: bytes only, no more is planned of it."""

from typing import Any

from halfbyte.models.config_values import positive


def vision_bytes(config: dict[str, Any], text_hidden: int) -> int:
    """BF16 bytes of a vision tower and its projector, by their matrices; 0 without one.

    MoonViT by Kimi-K2.5's `vision_config` keys; Llama 4 by those of transformers' `Llama4VisionConfig`.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return 0
    if "vt_hidden_size" in vision:
        hidden, wide = positive(vision, "vt_hidden_size"), positive(vision, "vt_intermediate_size")
        layers, merged = positive(vision, "vt_num_hidden_layers"), 4 * hidden  # 2 x 2 patches become one
        projector = merged * (merged + positive(vision, "text_hidden_size", hidden))
    elif config.get("model_type") == "llama4" and "vision_output_dim" in vision:
        hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
        layers, out = positive(vision, "num_hidden_layers"), positive(vision, "projector_output_dim")
        into = positive(vision, "projector_input_dim")
        projector = wide * into + into * out + positive(vision, "vision_output_dim") * text_hidden
    else:
        return 0
    return 2 * (layers * (4 * hidden * hidden + 2 * hidden * wide) + projector)
