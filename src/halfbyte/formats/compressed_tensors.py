"""The compressed-tensors dialect as it is written: the metadata block that vLLM and llm-compressor read.

Source: compressed-tensors 0.20, `quantization/quant_config.py` and the NVFP4 presets of `quantization/quant_scheme.py`;
vLLM 0.33 `CompressedTensorsConfig` for how entries of `ignore` are matched (a module's whole path, or `re:`).
"""

from collections.abc import Sequence
from typing import Any

from halfbyte.formats.nvfp4.compressed import FORM
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS


def quantization_config(activations: bool, ignore: Sequence[str]) -> dict[str, Any]:
    """`quantization_config` of config.json. activations: whether linears round their inputs too. ignore: paths."""
    four_bit = {
        "num_bits": 4,
        "type": "float",
        "strategy": "tensor_group",
        "group_size": BLOCK_SIZE,
        "symmetric": True,
        "dynamic": False,
    }
    group = {
        "targets": ["Linear"],
        "weights": four_bit,
        "input_activations": four_bit | {"dynamic": "local"} if activations else None,
        "output_activations": None,
        "format": FORM,
    }
    return {
        "quant_method": COMPRESSED_TENSORS,
        "format": FORM,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
        "kv_cache_scheme": None,
    }
