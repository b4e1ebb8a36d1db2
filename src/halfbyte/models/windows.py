"""Which layers attend to a window only, as a config says it."""

from typing import Any

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.config_values import positive

NO_LINEAR = "known: full, sliding-window and latent attention, with or without an indexer"

GPT_OSS_WINDOW = 128
"""transformers `GptOssConfig`, where the key is left out."""


def windows(text: dict[str, Any], model_type: str, layers: int) -> tuple[frozenset[int], int]:
    """Layers with a sliding window, and the window. Raises UnsupportedError for kinds of attention without a model.

    `layer_types` decides; without it gpt-oss alternates from a sliding layer on (transformers `GptOssConfig`), and
    Mixtral's `sliding_window` is every layer's. Llama 4's chunked layers count as if they kept everything: an upper
    bound, and what vLLM does unless told otherwise.
    """
    softmax = text.get("attn_type_list") or []
    if not isinstance(softmax, list) or any(kind != 1 for kind in softmax):
        raise UnsupportedError("config.json: attn_type_list has layers without softmax attention", hint=NO_LINEAR)
    kinds = text.get("layer_types")
    if kinds is None and model_type == "gpt_oss":
        kinds = ["sliding_attention", "full_attention"] * layers
    if kinds is None:
        everywhere = model_type == "mixtral" and text.get("sliding_window") is not None
        if text.get("use_sliding_window"):
            raise UnsupportedError("config.json: use_sliding_window without layer_types does not say which layers")
        kinds = ["sliding_attention" if everywhere else "full_attention"] * layers
    if not isinstance(kinds, list) or len(kinds) < layers:
        raise CheckpointError(f"config.json: layer_types has not one entry for each of {layers} layers")
    for kind in kinds[:layers]:
        if kind not in ("sliding_attention", "full_attention", "chunked_attention"):
            raise UnsupportedError(f"config.json: attention of kind {str(kind)[:60]!r} has no model", hint=NO_LINEAR)
    sliding = frozenset(layer for layer in range(layers) if kinds[layer] == "sliding_attention")
    usual = GPT_OSS_WINDOW if model_type == "gpt_oss" else None
    return sliding, positive(text, "sliding_window", usual) if sliding else 0
