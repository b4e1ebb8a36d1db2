"""INT4 in groups, as compressed-tensors packs it (`pack-quantized`): Kimi-K2.5 and later, llm-compressor's W4A16.

| part | dtype | shape of a matrix [N, K] |
|---|---|---|
| `weight_packed` | I32 | [N, K/8]: eight codes, lowest bits first, each the number plus 8 |
| `weight_scale` | BF16, F16 or F32 | [N, K/G] |
| `weight_zero_point` | I32 | [ceil(N/8), K/G], packed down the rows; asymmetric only |
| `weight_shape` | I64 or I32 | [2]: N and K, which the others say too |

A weight is (number - zero point) * scale. Names: `int4` and `int4-gG` for groups of G (32), `-zp` with zero points.
Source: compressed-tensors 0.12, `compressors/quantized_compressors/pack_quantized.py`.
"""

import re
from collections.abc import Mapping
from math import ceil, prod
from typing import TYPE_CHECKING

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import FLOATS, I32, I64
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS, QuantizationBlock
from halfbyte.formats.storage import SCALE, Parts, Span, StorageFormat, typed, typed_torch, whole_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

GROUP = 32
CODES = 8
"""In one int32."""
OFFSET = 8
"""What a stored code is above the number that it means."""
PACKED, ZERO_POINT, SHAPE = "weight_packed", "weight_zero_point", "weight_shape"
_NAME = re.compile(r"int4(?:-g(\d+))?(-zp)?")


class Int4(StorageFormat):
    numbers = PACKED
    scales = (SCALE, ZERO_POINT, SHAPE)
    kind = "int4-group"

    def __init__(self, group: int = GROUP, zero_points: bool = False) -> None:
        size = "" if group == GROUP else f"-g{group}"
        super().__init__(f"int4{size}{'-zp' if zero_points else ''}")
        self.group, self.zero_points = group, zero_points
        self.row_step = CODES if zero_points else 1

    def declared(self, block: QuantizationBlock) -> bool:
        """By the first group of four-bit integers that compressed-tensors describes."""
        if block.method != COMPRESSED_TENSORS:
            return False
        for _, weights in block.parts("weights"):
            if weights.get("num_bits") == 4 and weights.get("type", "int") == "int":
                same_points = bool(weights.get("symmetric", True)) is not self.zero_points
                return same_points and bool(weights.get("group_size", GROUP) == self.group)
        return False

    def recognises(self, parts: Parts) -> bool:
        beside = parts.keys() - {PACKED, SHAPE}
        wanted = {SCALE, ZERO_POINT} if self.zero_points else {SCALE}
        return parts[PACKED].dtype == I32 and beside == wanted and parts[SCALE].dtype in FLOATS

    def exactly(self, parts: Parts) -> "Int4":
        """With the group that the shapes say."""
        packed, scale = parts[PACKED].shape, parts[SCALE].shape
        if len(packed) != 2 or len(scale) != 2 or not scale[1] or CODES * packed[1] % scale[1]:
            return self
        return Int4(CODES * packed[1] // scale[1], self.zero_points)

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        packed, scale = parts[PACKED], parts[SCALE]
        if len(packed.shape) != 2:
            raise CheckpointError(f"{packed.name}: shape {list(packed.shape)}, wanted [rows, columns / {CODES}]")
        shape = rows, columns = packed.shape[0], CODES * packed.shape[1]
        wanted = {SCALE: (rows, columns // self.group)}
        if self.zero_points:
            wanted[ZERO_POINT] = (ceil(rows / CODES), columns // self.group)
        for part, sides in wanted.items():
            if columns % self.group or parts[part].shape != sides:
                raise CheckpointError(
                    f"{parts[part].name}: shape {list(parts[part].shape)}, wanted {list(sides)} beside {scale.name}, "
                    f"for {list(shape)} in groups of {self.group}"
                )
        if ZERO_POINT in wanted and parts[ZERO_POINT].dtype != I32:
            raise CheckpointError(f"{parts[ZERO_POINT].name}: {parts[ZERO_POINT].dtype}, wanted {I32}")
        if SHAPE in parts and (parts[SHAPE].dtype not in (I32, I64) or prod(parts[SHAPE].shape) != 2):
            raise CheckpointError(f"{parts[SHAPE].name}: {parts[SHAPE].dtype} {list(parts[SHAPE].shape)}, wanted two")
        return shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        elements = prod(shape)
        groups = ceil(elements / self.group)
        return elements // 2 + 2 * groups + (ceil(groups / 2) if self.zero_points else 0) + 8

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        spans = {part: whole_rows(parts[part], first, stop) for part in (PACKED, SCALE)}
        if self.zero_points:
            spans[ZERO_POINT] = whole_rows(parts[ZERO_POINT], first // CODES, ceil(stop / CODES))
        return spans

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        import numpy as np

        from halfbyte.formats.decoding import groups_of_int4

        scales = typed({SCALE: parts[SCALE]}, raw)[SCALE].astype(np.float32)
        points = None
        if self.zero_points:
            packed = typed({ZERO_POINT: parts[ZERO_POINT]}, raw)[ZERO_POINT]
            shifts = np.arange(CODES, dtype=np.int32)[:, None] * 4
            stored = ((packed[:, None, :] >> shifts) & 0xF).reshape(-1, packed.shape[1])[: len(scales)]
            points = (stored - OFFSET).astype(np.int8)
        return groups_of_int4(raw[PACKED].reshape(len(scales), -1), scales, points, self.group)

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        import torch

        codes = raw[PACKED].view(parts[PACKED].shape[0], -1)
        numbers = torch.stack([codes & 0xF, codes >> 4], -1).view(len(codes), -1).float() - OFFSET
        scales = typed_torch({SCALE: parts[SCALE]}, raw)[SCALE].float()
        grouped = numbers.view(len(codes), -1, self.group)
        if self.zero_points:
            packed = raw[ZERO_POINT].view(torch.int32).view(parts[ZERO_POINT].shape)
            shifts = torch.arange(CODES, device=packed.device, dtype=torch.int32)[:, None] * 4
            points = ((packed[:, None, :] >> shifts) & 0xF).view(-1, packed.shape[1])[: len(codes)] - OFFSET
            grouped = grouped - points.unsqueeze(-1)
        return (grouped * scales.unsqueeze(-1)).view(len(codes), -1).to(dtype)


def called(name: str) -> Int4 | None:
    """The format that a name spells, None if it is another's."""
    found = _NAME.fullmatch(name)
    return Int4(int(found.group(1) or GROUP), found.group(2) is not None) if found else None


FORMAT, WITH_ZERO_POINTS = Int4(), Int4(zero_points=True)
