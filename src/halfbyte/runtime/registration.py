"""Tells transformers about `quant_method: modelopt`."""

from typing import Any

from transformers.quantizers import auto

from halfbyte.errors import UnsupportedError
from halfbyte.runtime.config import ModelOptConfig
from halfbyte.runtime.quantizer import ModelOptQuantizer

METHOD = "modelopt"


def register() -> None:
    """Register config and quantizer, once. Raises UnsupportedError if something else has taken the name."""
    if auto.AUTO_QUANTIZER_MAPPING.get(METHOD) is ModelOptQuantizer:
        return
    if METHOD in auto.AUTO_QUANTIZER_MAPPING or METHOD in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise UnsupportedError(
            f"transformers already has a quantizer for {METHOD!r}", hint="import halfbyte.runtime before other plug-ins"
        )
    auto.register_quantization_config(METHOD)(ModelOptConfig)
    auto.register_quantizer(METHOD)(ModelOptQuantizer)
    # transformers has no public way to say that a config's options may be given to from_pretrained
    types: Any = (*auto.LOADING_ATTRIBUTES_CONFIG_TYPES, ModelOptConfig)
    auto.LOADING_ATTRIBUTES_CONFIG_TYPES = types
