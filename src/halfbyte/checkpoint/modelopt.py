"""The ModelOpt dialect: the four tensors of a quantized linear and the two metadata blocks that engines read.

Sources: nvidia-modelopt 0.47 unified export; the keys each loader demands were read in vLLM 0.33
(`ModelOptQuantConfigBase.from_config`) and SGLang 0.5.23 (`ModelConfig._parse_quant_hf_config`).
"""

from collections.abc import Sequence
from typing import Any, Literal

from halfbyte.formats.nvfp4.layout import BLOCK_SIZE, packed_bytes

Algorithm = Literal["NVFP4", "W4A16_NVFP4"]

PRODUCER = {"name": "modelopt", "version": "0.47.0"}
"""Engines and tools know the dialect by this producer; who really wrote the file stands in `halfbyte.json`."""

HF_QUANT_CONFIG = "hf_quant_config.json"


def linear_tensors(
    module: str, shape: tuple[int, ...], algorithm: Algorithm
) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape and bytes of the tensors that one quantized linear [N, K] becomes, in file order."""
    codes, scales = packed_bytes(shape)
    tensors: list[tuple[str, str, tuple[int, ...], int]] = [
        (f"{module}.weight", "U8", (shape[0], shape[1] // 2), codes),
        (f"{module}.weight_scale", "F8_E4M3", (shape[0], shape[1] // BLOCK_SIZE), scales),
        (f"{module}.weight_scale_2", "F32", (), 4),
    ]
    if algorithm == "NVFP4":
        tensors.append((f"{module}.input_scale", "F32", (), 4))
    return tensors


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
    activations = four_bit if algorithm == "NVFP4" else None
    return {
        "quant_method": "modelopt",
        "quant_algo": algorithm,
        "group_size": BLOCK_SIZE,
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": four_bit, "input_activations": activations},
        },
        "ignore": list(exclusions),
        "producer": PRODUCER,
    }
