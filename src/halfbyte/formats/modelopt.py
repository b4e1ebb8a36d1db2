"""The ModelOpt dialect as it is written: the two metadata blocks that engines read. `modelopt_block` reads them.

Sources: nvidia-modelopt 0.47 unified export; the keys each loader demands were read in vLLM 0.33
(`ModelOptQuantConfigBase.from_config`) and SGLang 0.5.23 (`ModelConfig._parse_quant_hf_config`).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from halfbyte.formats.nvfp4 import stored
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import MODELOPT

Algorithm = Literal["NVFP4", "W4A16_NVFP4"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
WITH_ACTIVATIONS, WEIGHT_ONLY = ALGORITHMS
"""Whether linears round their inputs to four bits too, by `input_scale`, where the hardware does."""

PRODUCER = {"name": MODELOPT, "version": "0.47.0"}
"""Engines and tools know the dialect by this producer; who really wrote the file stands in `halfbyte.json`."""

HF_QUANT_CONFIG = "hf_quant_config.json"


def format_of(algorithm: Algorithm) -> stored.Nvfp4:
    """How the linears that an algorithm quantizes are stored."""
    return stored.FORMAT if algorithm == WITH_ACTIVATIONS else stored.WEIGHT_ONLY


def hf_quant_config(algorithm: Algorithm, exclusions: Sequence[str]) -> dict[str, Any]:
    """`hf_quant_config.json`. vLLM demands all four keys under `quantization`, null or not."""
    return {
        "producer": PRODUCER,
        "quantization": {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": None,
            "group_size": BLOCK_SIZE,
            "exclude_modules": list(exclusions),
        },
    }


def quantization_config(algorithm: Algorithm, exclusions: Sequence[str]) -> dict[str, Any]:
    """`quantization_config` of config.json: the flat form, same content. Null input_activations mean weight-only."""
    four_bit = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": BLOCK_SIZE}
    activations = four_bit if algorithm == WITH_ACTIVATIONS else None
    return {
        "quant_method": MODELOPT,
        "quant_algo": algorithm,
        "group_size": BLOCK_SIZE,
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": four_bit, "input_activations": activations},
        },
        "ignore": list(exclusions),
        "producer": PRODUCER,
    }
