"""FP8 with one float32 scale for each 128 x 128 tile, as DeepSeek-V3 is published: E4M3 * weight_scale_inv.

| part | dtype | shape |
|---|---|---|
| `weight` | F8_E4M3 | [N, K] |
| `weight_scale_inv` | F32 | [ceil(N/128), ceil(K/128)]; it multiplies, whatever its name says |

compressed-tensors (strategy `block`) calls the scales `weight_scale`, mostly BF16. DeepSeek-V4 calls them `scale`, and
publishes them as powers of two (F8_E8M0), of its base models as F32.
Sources: DeepSeek-V3 `inference/kernel.py`, `weight_dequant`; `weight_block_size` [128, 128] in config.json;
compressed-tensors 0.20 `quantization/lifecycle/forward.py`.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import F8_E4M3, F8_E8M0
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS, QuantizationBlock
from halfbyte.formats.storage import (
    BARE_SCALE,
    SCALE,
    WEIGHT,
    Operand,
    Parts,
    Span,
    StorageFormat,
    Stored,
    typed,
    typed_torch,
    whole_rows,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

TILE = 128
SCALE_INV = "weight_scale_inv"
E4M3_MAX = 448


class Fp8Block(StorageFormat):
    """powers: whether the scales are powers of two, in a byte each."""

    scales = (SCALE_INV, SCALE, BARE_SCALE)
    kind = "fp8-block"
    operand: Operand = "fp8"
    row_step = TILE

    def __init__(self, name: str, powers: bool = False) -> None:
        super().__init__(name)
        self._powers = powers

    def recognises(self, parts: Parts) -> bool:
        if parts[WEIGHT].dtype != F8_E4M3 or parts.keys() not in [{WEIGHT, scale} for scale in self.scales]:
            return False
        if (_scale(parts)[1].dtype == F8_E8M0) is not self._powers:
            return False
        shape, scale = parts[WEIGHT].shape, _scale(parts)[1].shape
        return SCALE not in parts or (scale == tuple(map(_tiles, shape)) != (shape[0], 1))

    def declared(self, block: QuantizationBlock) -> bool:
        if block.method == COMPRESSED_TENSORS:
            return not self._powers and any(weights.get("strategy") == "block" for _, weights in block.parts("weights"))
        return bool(block.method == "fp8" and not self._powers)

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        shape, scale = parts[WEIGHT].shape, _scale(parts)[1]
        wanted = tuple(_tiles(side) for side in shape)
        if scale.shape != wanted:
            raise CheckpointError(f"{scale.name}: shape {list(scale.shape)}, wanted {list(wanted)} for {list(shape)}")
        return shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        rows, columns = prod(shape[:-1]), shape[-1]
        return rows * columns + (1 if self._powers else 4) * _tiles(rows) * _tiles(columns)

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        name, scale = _scale(parts)
        tiles = whole_rows(scale, first // TILE, _tiles(stop))
        return {WEIGHT: whole_rows(parts[WEIGHT], first, stop), name: tiles}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        from halfbyte.formats.decoding import tiles_of_fp8

        name, scale = _scale(parts)
        scales = typed({name: scale}, raw)[name]
        return tiles_of_fp8(raw[WEIGHT].reshape(parts[WEIGHT].shape), scales.astype("float32"), TILE)

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        values = typed_torch(parts, raw)
        result = values[WEIGHT].float()
        scales = values[_scale(parts)[0]].float().repeat_interleave(TILE, dim=1)[:, : result.shape[1]]
        for tile, start in enumerate(range(0, len(result), TILE)):
            result[start : start + TILE] *= scales[tile]
        return result.to(dtype)

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        """Each tile's scale is its amax / 448; nothing is shared between matrices."""
        import numpy as np

        from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

        decoded = []
        for weight in weights:
            values = weight.astype(np.float32)
            for row in range(0, values.shape[0], TILE):
                for column in range(0, values.shape[1], TILE):
                    tile = values[row : row + TILE, column : column + TILE]
                    scale = np.float32(np.abs(tile).max() / E4M3_MAX) or np.float32(1)
                    tile[:] = (tile / scale).astype(NUMPY_DTYPES[F8_E4M3]).astype(np.float32) * scale
            decoded.append(values)
        return decoded


def _scale(parts: Parts) -> tuple[str, Stored]:
    """What the scales are called here, and they."""
    name = next(name for name in FORMAT.scales if name in parts)
    return name, parts[name]


def _tiles(side: int) -> int:
    return -(-side // TILE)


FORMAT = Fp8Block("fp8-block")
POWERS = Fp8Block("fp8-block-e8m0", powers=True)
