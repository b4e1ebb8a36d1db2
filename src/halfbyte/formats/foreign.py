"""Formats that others write and Halfbyte does not read, recognised so that one line can name them.

By the parts that a weight is stored as, which no format of `catalogue` has: GPTQ, AWQ, bitsandbytes, ModelSlim, and of
compressed-tensors what is sparse, reordered or of eight-bit integers. Sources: compressed-tensors 0.20 `compressors/`,
transformers 5.23 `quantizers/`.
"""

from collections.abc import Mapping
from typing import Any

from halfbyte.errors import UnsupportedError
from halfbyte.formats.dtypes import I32, U8
from halfbyte.formats.int4 import PACKED
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS, CONFIG_KEY, QuantizationBlock
from halfbyte.formats.storage import SCALE, WEIGHT, Stored

_PARTS = {
    **dict.fromkeys(("bitmask", "compressed", "row_offsets", "weight_g_idx"), COMPRESSED_TENSORS),
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
        if part in _PARTS or (compressed and (_integers(tensors, name) or _other_codes(block, part, tensor))):
            raise UnsupportedError(
                f"{where}: is quantized in a format that Halfbyte does not read: "
                f"{_called(block, _PARTS.get(part, COMPRESSED_TENSORS))} (first {ascii(name[:200])[1:-1]})",
                hint="give the BF16 checkpoint, or one in NVFP4, MXFP4, FP8, or INT4 of compressed-tensors",
            )


def _integers(tensors: Mapping[str, Stored], scale: str) -> bool:
    """Whether a scale's weight is stored as eight-bit integers."""
    owner, _, part = scale.rpartition(".")
    weight = tensors.get(f"{owner}.{WEIGHT}")
    return part == SCALE and weight is not None and weight.dtype == "I8"


def _other_codes(block: QuantizationBlock, part: str, tensor: Stored) -> bool:
    """Whether packed numbers are not of four bits: three bits or eight in int32."""
    if part != PACKED:
        return False
    if tensor.dtype not in (I32, U8):
        return True
    bits = {weights.get("num_bits", 4) for _, weights in block.parts("weights")}
    return tensor.dtype == I32 and bool(bits) and 4 not in bits


def _called(block: QuantizationBlock, by_parts: str) -> str:
    """The format by the names that config.json gives it, where it gives any: `compressed-tensors, nvfp4-...`."""
    method, form = (word if isinstance(word, str) else "" for word in (block.method, block.stated.get("format")))
    return ", ".join(ascii(word[:60])[1:-1] for word in (method or by_parts, form) if word)
