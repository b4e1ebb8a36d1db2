"""The ModelOpt dialect as it is written: the two metadata blocks that engines read. `modelopt_block` reads them.

Sources: nvidia-modelopt 0.47 unified export; the keys each loader demands were read in vLLM 0.33
(`ModelOptQuantConfigBase.from_config`) and SGLang 0.5.23 (`ModelConfig._parse_quant_hf_config`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from halfbyte.formats.fp8_block import TILE
from halfbyte.formats.nvfp4 import stored
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import EXCLUSION_KEYS, MODELOPT

Algorithm = Literal["NVFP4", "W4A16_NVFP4"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
WITH_ACTIVATIONS, WEIGHT_ONLY = ALGORITHMS
"""Whether linears round their inputs to four bits too, by `input_scale`, where the hardware does."""

PRODUCER = {"name": MODELOPT, "version": "0.47.0"}
"""Engines and tools know the dialect by this producer; who really wrote the file stands in `halfbyte.json`."""

HF_QUANT_CONFIG = "hf_quant_config.json"
MIXED = "MIXED_PRECISION"
MOE_ALGORITHM = "moe_quant_algo"
"""Key of the experts' algorithm, where `quant_method` is another's (fp8)."""


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


def mixed_hf_quant_config(experts: Sequence[str], exclusions: Sequence[str]) -> dict[str, Any]:
    """The same where only the experts are NVFP4 and all else stays in the source's own format.

    experts: modules that hold them, one a layer. Source: ModelOpt examples/deepseek, DeepSeek-V4's
    quantize_to_nvfp4.py, by which NVIDIA's checkpoints are made.
    """
    return {"producer": PRODUCER, "quantization": _mixed(experts) | {"exclude_modules": list(exclusions)}}


def mixed_quantization_config(
    stated: Mapping[str, Any], experts: Sequence[str], exclusions: Sequence[str]
) -> dict[str, Any]:
    """`quantization_config` of such: the source's own, `stated`, and what is said of the experts."""
    told = {"activation_scheme": "dynamic", "weight_block_size": [TILE, TILE]}
    block = told | {key: value for key, value in stated.items() if key not in EXCLUSION_KEYS}
    block |= {"quant_method": "fp8", MOE_ALGORITHM: WITH_ACTIVATIONS, "producer": PRODUCER} | _mixed(experts)
    groups = quantization_config(WITH_ACTIVATIONS, ())["config_groups"]
    return block | {"config_groups": groups, "ignore": list(exclusions)}


def _mixed(experts: Sequence[str]) -> dict[str, Any]:
    packed = {"quant_algo": WITH_ACTIVATIONS, "group_size": BLOCK_SIZE}
    return {
        "quant_algo": MIXED,
        "kv_cache_quant_algo": None,
        "group_size": BLOCK_SIZE,
        "quantized_layers": {module: dict(packed) for module in experts},
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
