"""FP8 with one float32 scale for the tensor, or one for each row: E4M3 * weight_scale.

| part | dtype | shape |
|---|---|---|
| `weight` | F8_E4M3 | [N, K] |
| `weight_scale` | F32 (or BF16) | [], [1], or one for each row: [N], [N, 1] |
| `input_scale` | F32 | []; where activations are quantized statically |
"""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import F8_E4M3
from halfbyte.formats.storage import SCALE, WEIGHT, Operand, Parts, Span, StorageFormat, typed, typed_torch, whole_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

INPUT_SCALE = "input_scale"


class Fp8(StorageFormat):
    scales = (SCALE, INPUT_SCALE)
    operand: Operand = "fp8"

    def recognises(self, parts: Parts) -> bool:
        beside = parts.keys() - {WEIGHT}
        return parts[WEIGHT].dtype == F8_E4M3 and SCALE in beside and beside <= {*self.scales}

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        shape, scale = parts[WEIGHT].shape, parts[SCALE]
        if prod(scale.shape) != 1 and scale.shape not in ((shape[0],), (shape[0], 1)):
            raise CheckpointError(
                f"{scale.name}: shape {list(scale.shape)}, wanted one number, or one for each of {shape[0]} rows"
            )
        return shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        return prod(shape) + 4

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        scale = parts[SCALE]
        by_row = scale.shape and scale.shape[0] == parts[WEIGHT].shape[0] != 1
        spans = {WEIGHT: whole_rows(parts[WEIGHT], first, stop)}
        return spans | {SCALE: whole_rows(scale, first, stop) if by_row else Span(0, scale.shape)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        from halfbyte.formats.decoding import rows_of_fp8

        scale = typed({SCALE: parts[SCALE]}, raw)[SCALE].astype("float32")
        shape = parts[WEIGHT].shape
        return rows_of_fp8(raw[WEIGHT].reshape(-1, shape[-1]), scale.reshape(-1, 1)).reshape(shape)

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        values = typed_torch(parts, raw)
        scale = values[SCALE].float()
        return (values[WEIGHT].float() * (scale.view(-1, 1) if scale.ndim else scale)).to(dtype)


FORMAT = Fp8("fp8")
