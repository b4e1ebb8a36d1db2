"""MXFP4: E2M1 codes, two to a byte, and one E8M0 scale (a power of two) for 32 elements of a row.

| part | dtype | shape of a matrix [N, K] |
|---|---|---|
| `weight_packed` | U8 | [N, K/2], low nibble first |
| `weight_scale` | U8 (or F8_E8M0) | [N, K/32]; 2^(byte - 127), 255 is NaN |

DeepSeek-V4 calls them `weight` (I8) and `scale` (F8_E8M0). gpt-oss has stacks of experts: `STACK_blocks`, U8
[E, N, K/32, 16], and `STACK_scales`, U8 [E, N, K/32]; its stacks of 16 bits lie the other way round, [E, K, N].

Sources: OCP Microscaling Formats (MX) v1.0; parts as compressed-tensors 0.12 writes them (`mxfp4-pack-quantized`), and
as stand in DeepSeek-V4-Flash and gpt-oss-20b; transformers 5.23 `convert_moe_packed_tensors`.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from halfbyte.errors import CheckpointError, NonFiniteError, UnsupportedError
from halfbyte.formats.dtypes import F8_E8M0, I8, U8
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.formats.storage import (
    BARE_SCALE,
    SCALE,
    WEIGHT,
    Operand,
    Parts,
    Span,
    StorageFormat,
    WholeStack,
    one_of,
    whole_rows,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

BLOCK_SIZE = 32
BIAS = 127
MOST, MOST_EXPONENT = 6.0, 2
"""Largest E2M1 number, and its power of two."""
NAN = 255
PACKED = "weight_packed"


class Mxfp4(StorageFormat):
    """numbers, scale: what codes and scales are called. dtypes: of the codes."""

    kind = "mxfp4"
    operand: Operand = "fp4"

    def __init__(self, name: str, numbers: str, scale: str, dtypes: tuple[str, ...]) -> None:
        super().__init__(name)
        self.numbers, self.scales, self.scale, self._dtypes = numbers, (scale,), scale, dtypes

    def declared(self, block: QuantizationBlock) -> bool:
        return bool(block.method == self.name)

    def recognises(self, parts: Parts) -> bool:
        if parts.keys() != {self.numbers, self.scale} or parts[self.numbers].dtype not in self._dtypes:
            return False
        return parts[self.scale].dtype in (U8, F8_E8M0)

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        packed, scale = parts[self.numbers], parts[self.scale]
        shape = (*packed.shape[:-1], 2 * packed.shape[-1]) if packed.shape else ()
        wanted = (*shape[:-1], shape[-1] // BLOCK_SIZE) if shape else ()
        if len(shape) != 2 or shape[-1] % BLOCK_SIZE or scale.shape != wanted:
            raise CheckpointError(
                f"{packed.name}: packed {list(packed.shape)} with block scales {list(scale.shape)}, wanted "
                f"{list(wanted)} (one for {BLOCK_SIZE} elements of a row)"
            )
        return shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        elements = prod(shape)
        return elements // 2 + elements // BLOCK_SIZE

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        return {part: whole_rows(parts[part], first, stop) for part in (self.numbers, self.scale)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        from halfbyte.formats.decoding import blocks_of_mxfp4

        if (raw[self.scale] == NAN).any():
            raise NonFiniteError(f"{parts[self.scale].name}: a block scale is NaN")
        rows = parts[self.numbers].shape[0]
        return blocks_of_mxfp4(raw[self.numbers].reshape(rows, -1), raw[self.scale].reshape(rows, -1))

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        """A block's scale is 2^(floor(log2 amax) - 2); codes are the nearest, ties to even, at most 6 (OCP MX).

        Raises UnsupportedError for rows that are no whole number of blocks.
        """
        import ml_dtypes
        import numpy as np

        decoded = []
        for weight in weights:
            if weight.shape[1] % BLOCK_SIZE:
                raise UnsupportedError(f"{weight.shape[1]} columns are no blocks of {BLOCK_SIZE}")
            blocks = weight.astype(np.float32).reshape(-1, BLOCK_SIZE)
            amax = np.abs(blocks).max(1, keepdims=True)
            exponent = np.frexp(np.where(amax > 0, amax, 1))[1] - 1 - MOST_EXPONENT
            scale = np.ldexp(np.float32(1), np.maximum(exponent, -BIAS)).astype(np.float32)
            codes = np.clip(blocks / scale, -MOST, MOST).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
            decoded.append((codes * scale).reshape(weight.shape))
        return decoded

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        import torch

        from halfbyte.formats.nvfp4.format import SIGNED_E2M1

        exponents = raw[self.scale].view(parts[self.scale].shape).int()
        if bool((exponents == NAN).any()):
            raise CheckpointError(f"{parts[self.scale].name}: a block scale is NaN")
        codes = raw[self.numbers].view(parts[self.numbers].shape)
        values = torch.tensor(SIGNED_E2M1, dtype=torch.float32, device=codes.device)
        numbers = values[torch.stack([codes & 0xF, codes >> 4], -1).view(len(codes), -1).int()]
        blocks = numbers.view(len(codes), -1, BLOCK_SIZE)
        return torch.ldexp(blocks, exponents.unsqueeze(-1) - BIAS).view(len(codes), -1).to(dtype)


FORMAT = Mxfp4("mxfp4", PACKED, SCALE, (U8,))
UNDER_WEIGHT = Mxfp4("mxfp4-weight", WEIGHT, BARE_SCALE, (I8, U8))
"""As DeepSeek-V4 is published."""

BLOCKS, SCALES = "blocks", "scales"
HALF_BLOCK = BLOCK_SIZE // 2
"""Bytes of a block's codes."""


class Mxfp4Stack(WholeStack, Mxfp4):
    """As gpt-oss is published. Logical shape [E, K, N], as the same stack has in 16 bits."""

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        packed, scale = parts[self.numbers], parts[self.scale]
        if len(packed.shape) != 4 or packed.shape[-1] != HALF_BLOCK or scale.shape != packed.shape[:-1]:
            raise CheckpointError(
                f"{packed.name}: blocks {list(packed.shape)} with scales {list(scale.shape)}, wanted [experts, "
                f"outputs, blocks of inputs, {HALF_BLOCK}] and the same without the last"
            )
        experts, outputs, blocks, _ = packed.shape
        return experts, blocks * BLOCK_SIZE, outputs

    def of_expert(self, parts: Parts, number: int) -> tuple[StorageFormat, dict[str, Span]]:
        first, (outputs, blocks, half) = one_of(parts[self.numbers], number)
        return OF_STACK, {
            self.numbers: Span(first, (outputs, blocks * half)),
            self.scale: one_of(parts[self.scale], number),
        }


STACK = Mxfp4Stack("mxfp4", BLOCKS, SCALES, (U8,))
OF_STACK = Mxfp4("mxfp4-blocks", BLOCKS, SCALES, (U8,))
"""One expert's matrix out of it: its blocks lie one behind the other, as those of any matrix."""
