"""NVFP4 as compressed-tensors stores it (`nvfp4-pack-quantized`): other names, the second scale inverse.

| part | dtype | shape of a matrix [N, K] |
|---|---|---|
| `weight_packed` | U8 | [N, K/2], low nibble first |
| `weight_scale` | F8_E4M3 | [N, K/16] |
| `weight_global_scale` | F32 | [1] or []; it divides |
| `input_global_scale` | F32 | [1] or []; it divides; not where only weights are quantized |

Codes and block scales are those of ModelOpt's layout, byte for byte; the second scale is ModelOpt's inverted
(448 * 6 / amax for amax / (448 * 6)). A weight is code * (block scale / global scale), as the library computes it.
Source: compressed-tensors 0.20, `compressors/nvfp4/`, `quantization/lifecycle/forward.py`.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import F8_E4M3, F32, U8
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE, packed_bytes
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS, QuantizationBlock
from halfbyte.formats.storage import SCALE, Operand, Parts, Span, StorageFormat, typed, typed_torch, whole_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

PACKED, GLOBAL_SCALE, INPUT_GLOBAL_SCALE = "weight_packed", "weight_global_scale", "input_global_scale"
FORM = "nvfp4-pack-quantized"
"""What `quantization_config` calls it."""


class CompressedNvfp4(StorageFormat):
    numbers = PACKED
    scales = (SCALE, GLOBAL_SCALE, INPUT_GLOBAL_SCALE)
    operand: Operand = "fp4"

    def recognises(self, parts: Parts) -> bool:
        beside = parts.keys() - {PACKED}
        return parts[PACKED].dtype == U8 and {SCALE, GLOBAL_SCALE} <= beside <= {*self.scales}

    def declared(self, block: QuantizationBlock) -> bool:
        return block.method == COMPRESSED_TENSORS and block.stated.get("format") == FORM

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        packed, scale = parts[PACKED], parts[SCALE]
        shape = (*packed.shape[:-1], 2 * packed.shape[-1]) if packed.shape else ()
        wanted = (*shape[:-1], shape[-1] // BLOCK_SIZE) if shape else ()
        if len(shape) != 2 or shape[-1] % BLOCK_SIZE or scale.shape != wanted or scale.dtype != F8_E4M3:
            raise CheckpointError(
                f"{packed.name}: packed {list(packed.shape)} with {scale.dtype} block scales {list(scale.shape)}, "
                f"wanted {F8_E4M3} {list(wanted)} (one for {BLOCK_SIZE} elements of a row)"
            )
        for part in (GLOBAL_SCALE, INPUT_GLOBAL_SCALE):
            scalar = parts.get(part)
            if scalar is not None and (scalar.dtype != F32 or prod(scalar.shape) != 1):
                raise CheckpointError(f"{scalar.name}: {scalar.dtype} {list(scalar.shape)}, wanted one {F32}")
        return shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        return sum(packed_bytes(shape)) + 8

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        spans = {part: whole_rows(parts[part], first, stop) for part in (PACKED, SCALE)}
        return spans | {GLOBAL_SCALE: Span(0, parts[GLOBAL_SCALE].shape)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        from halfbyte.formats.decoding import blocks_of_nvfp4

        values = typed(parts, raw)
        scales = values[SCALE].astype("float32") / values[GLOBAL_SCALE].reshape(-1)[0]
        return blocks_of_nvfp4(values[PACKED], scales)

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        import torch

        from halfbyte.formats.nvfp4.format import SIGNED_E2M1
        from halfbyte.formats.nvfp4.torch import check_positive, check_scales

        values = typed_torch(parts, raw)
        codes, scales, divisor = values[PACKED], values[SCALE], values[GLOBAL_SCALE].reshape(())
        check_positive(parts[GLOBAL_SCALE].name, divisor)
        check_scales(parts[SCALE].name, scales)
        table = torch.tensor(SIGNED_E2M1, dtype=torch.float32, device=codes.device)
        numbers = table[torch.stack([codes & 0xF, codes >> 4], -1).view(len(codes), -1).int()]
        blocks = numbers.view(len(codes), -1, BLOCK_SIZE) * (scales.float() / divisor).unsqueeze(-1)
        return blocks.view(len(codes), -1).to(dtype)

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        from halfbyte.formats.nvfp4 import stored

        return stored.FORMAT.rounded(weights)


FORMAT = CompressedNvfp4("nvfp4-ct")
