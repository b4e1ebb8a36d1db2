"""Formats that others write and Halfbyte does not read, recognised so that one line can name them.

By the parts that a weight is stored as, which no format of `catalogue` has: compressed-tensors (llm-compressor's NVFP4
among them; its FP8 has ModelOpt's parts, but a scale for each row), GPTQ, AWQ, bitsandbytes. Sources:
compressed-tensors 0.12 `compressors/`, transformers 5.23 `quantizers/`.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from halfbyte.errors import UnsupportedError
from halfbyte.formats.dtypes import F8_E4M3
from halfbyte.formats.quantization_block import CONFIG_KEY, QuantizationBlock
from halfbyte.formats.storage import SCALE, WEIGHT, Stored

COMPRESSED_TENSORS = "compressed-tensors"

_PARTS = {
    **dict.fromkeys(
        ("weight_packed", "weight_shape", "weight_global_scale", "input_global_scale", "weight_zero_point"),
        COMPRESSED_TENSORS,
    ),
    **dict.fromkeys(("bitmask", "compressed", "row_offsets"), COMPRESSED_TENSORS),
    **dict.fromkeys(("qweight", "qzeros", "g_idx"), "GPTQ or AWQ"),
    **dict.fromkeys(("deq_scale", "quant_bias"), "ModelSlim"),
    **dict.fromkeys(("absmax", "quant_map", "nested_absmax", "nested_quant_map"), "bitsandbytes"),
}
"""Last component of a tensor's name -> who writes such."""


def refuse_foreign(config: Mapping[str, Any], tensors: Mapping[str, Stored], where: str) -> None:
    """Raise UnsupportedError, in one line, for a checkpoint in a format that is not read. where: for the message."""
    stated = config.get(CONFIG_KEY)
    block = QuantizationBlock(stated if isinstance(stated, dict) else {})
    compressed = block.method == COMPRESSED_TENSORS
    if not compressed and {name[name.rfind(".") + 1 :] for name in tensors}.isdisjoint(_PARTS):
        return
    for name, tensor in tensors.items():
        part = name[name.rfind(".") + 1 :]
        if part in _PARTS or (compressed and part == SCALE and prod(tensor.shape) != 1 and _eight_bit(tensors, name)):
            raise UnsupportedError(
                f"{where}: is quantized in a format that Halfbyte does not read: "
                f"{_called(block, _PARTS.get(part, COMPRESSED_TENSORS))} (first {ascii(name[:200])[1:-1]})",
                hint="give the BF16 checkpoint, or one in ModelOpt's NVFP4 or in FP8 blocks",
            )


def _eight_bit(tensors: Mapping[str, Stored], scale: str) -> bool:
    weight = tensors.get(scale.removesuffix(SCALE) + WEIGHT)
    return weight is not None and weight.dtype in (F8_E4M3, "I8")


def _called(block: QuantizationBlock, by_parts: str) -> str:
    """The format by the names that config.json gives it, where it gives any: `compressed-tensors, nvfp4-...`."""
    method, form = (word if isinstance(word, str) else "" for word in (block.method, block.stated.get("format")))
    return ", ".join(ascii(word[:60])[1:-1] for word in (method or by_parts, form) if word)
