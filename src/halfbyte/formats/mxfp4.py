"""MXFP4: E2M1 codes, two to a byte, and one E8M0 scale for 32 elements. Known on paper only: its bytes.

Source: OCP Microscaling Formats (MX) v1.0.
"""

from math import prod

from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.formats.storage import Operand, StorageFormat

BLOCK_SIZE = 32


class Mxfp4(StorageFormat):
    operand: Operand = "fp4"

    def declared(self, block: QuantizationBlock) -> bool:
        return bool(block.method == "mxfp4")

    def bytes(self, shape: tuple[int, ...]) -> int:
        elements = prod(shape)
        return elements // 2 + elements // BLOCK_SIZE


FORMAT = Mxfp4("mxfp4")
