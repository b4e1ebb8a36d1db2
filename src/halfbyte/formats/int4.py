"""INT4 in groups, as compressed-tensors packs it. Known on paper only: its bytes.

`int4` and `int4-gG`: group G (32), one BF16 scale for each, the shape as two int32. `int4-zp`, `int4-gG-zp`:
asymmetric, with a four-bit zero point for each group.
"""

import re
from math import ceil, prod

from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.formats.storage import StorageFormat

GROUP = 32
_NAME = re.compile(r"int4(?:-g(\d+))?(-zp)?")


class Int4(StorageFormat):
    def __init__(self, group: int = GROUP, zero_points: bool = False) -> None:
        size = "" if group == GROUP else f"-g{group}"
        super().__init__(f"int4{size}{'-zp' if zero_points else ''}")
        self.group, self.zero_points = group, zero_points

    def declared(self, block: QuantizationBlock) -> bool:
        """By the first group of four-bit integers that compressed-tensors describes."""
        if block.method != "compressed-tensors":
            return False
        for _, weights in block.parts("weights"):
            if weights.get("num_bits") == 4 and weights.get("type", "int") == "int":
                same_points = bool(weights.get("symmetric", True)) is not self.zero_points
                return same_points and bool(weights.get("group_size", GROUP) == self.group)
        return False

    def bytes(self, shape: tuple[int, ...]) -> int:
        elements = prod(shape)
        groups = ceil(elements / self.group)
        return elements // 2 + 2 * groups + (ceil(groups / 2) if self.zero_points else 0) + 8


def called(name: str) -> Int4 | None:
    """The format that a name spells, None if it is another's."""
    found = _NAME.fullmatch(name)
    return Int4(int(found.group(1) or GROUP), found.group(2) is not None) if found else None


FORMAT, WITH_ZERO_POINTS = Int4(), Int4(zero_points=True)
