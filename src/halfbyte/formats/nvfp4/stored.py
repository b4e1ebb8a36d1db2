"""NVFP4 as ModelOpt stores it: the four tensors of a quantized linear.

| part | dtype | shape of a matrix [N, K] |
|---|---|---|
| `weight` | U8 | [N, K/2], low nibble first |
| `weight_scale` | F8_E4M3 | [N, K/16] |
| `weight_scale_2` | F32 | []; it multiplies |
| `input_scale` | F32 | []; not where only weights are quantized (`nvfp4-w4a16`) |

Source: nvidia-modelopt 0.47, unified export.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import DTYPE_BYTES, F8_E4M3, F32, U8
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE, packed_bytes
from halfbyte.formats.quantization_block import MODELOPT, QuantizationBlock
from halfbyte.formats.storage import SCALE, WEIGHT, Operand, Parts, Span, StorageFormat, typed, typed_torch, whole_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

SCALE_2, INPUT_SCALE = "weight_scale_2", "input_scale"


class Described(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class Nvfp4(StorageFormat):
    scales: tuple[str, ...] = (SCALE, SCALE_2, INPUT_SCALE)
    algorithm = "NVFP4"
    operand: Operand = "fp4"

    def recognises(self, parts: Parts) -> bool:
        beside = parts.keys() - {WEIGHT}
        return parts[WEIGHT].dtype == U8 and {SCALE, SCALE_2} <= beside <= {SCALE, SCALE_2, INPUT_SCALE}

    def declared(self, block: QuantizationBlock) -> bool:
        return bool(block.method == MODELOPT and block.algorithm == self.algorithm)

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        weight, scale = parts[WEIGHT], parts[SCALE]
        shape = (*weight.shape[:-1], 2 * weight.shape[-1]) if weight.shape else ()
        wanted = (*shape[:-1], shape[-1] // BLOCK_SIZE) if shape else ()
        if len(shape) != 2 or shape[-1] % BLOCK_SIZE or scale.shape != wanted or scale.dtype != F8_E4M3:
            raise CheckpointError(
                f"{weight.name}: packed {list(weight.shape)} with {scale.dtype} block scales {list(scale.shape)}, "
                f"wanted {F8_E4M3} {list(wanted)} (one for {BLOCK_SIZE} elements of a row)"
            )
        self.check_scalars(parts)
        return shape

    def check_scalars(self, parts: Parts) -> None:
        """Raise CheckpointError for a second scale or an input scale that is not one float32."""
        for part in (SCALE_2, INPUT_SCALE):
            scalar = parts.get(part)
            if scalar is not None and (scalar.dtype != F32 or prod(scalar.shape) != 1):
                raise CheckpointError(f"{scalar.name}: {scalar.dtype} {list(scalar.shape)}, wanted one {F32}")

    def tensors(self, module: str, shape: tuple[int, ...]) -> list[Described]:
        """What a linear [N, K] becomes, in file order."""
        rows, columns = shape
        layout: dict[str, tuple[str, tuple[int, ...]]] = {
            WEIGHT: (U8, (rows, columns // 2)),
            SCALE: (F8_E4M3, (rows, columns // BLOCK_SIZE)),
            SCALE_2: (F32, ()),
            INPUT_SCALE: (F32, ()),
        }
        return [
            Described(f"{module}.{part}", *layout[part], prod(layout[part][1]) * DTYPE_BYTES[layout[part][0]])
            for part in (WEIGHT, *self.scales)
        ]

    def bytes(self, shape: tuple[int, ...]) -> int:
        scalars = len(self.scales) - 1
        return sum(packed_bytes(shape)) + scalars * DTYPE_BYTES[F32]

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        spans = {part: whole_rows(parts[part], first, stop) for part in (WEIGHT, SCALE)}
        return spans | {SCALE_2: Span(0, parts[SCALE_2].shape)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        from halfbyte.formats.nvfp4.codec import decode
        from halfbyte.formats.nvfp4.reference import Encoded

        values = typed(parts, raw)
        return decode(Encoded(values[WEIGHT], values[SCALE].view("uint8"), values[SCALE_2].reshape(-1)[0]))

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        from halfbyte.formats.nvfp4.torch import check_positive, check_scales, dequantized, dequantized_on_cpu

        values = typed_torch(parts, raw)
        codes, scales, scale_2 = values[WEIGHT], values[SCALE], values[SCALE_2].reshape(())
        check_positive(parts[SCALE_2].name, scale_2)
        check_scales(parts[SCALE].name, scales)
        if codes.device.type != "cpu":
            return dequantized(codes, scales, scale_2.expand(codes.shape[0])).to(dtype)
        return dequantized_on_cpu(codes, scales, scale_2).to(dtype)

    def input_scale_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]") -> "torch.Tensor | None":
        """float32 [] by which activations are rounded; None where there is none.

        Raises CheckpointError unless positive and finite.
        """
        from halfbyte.formats.nvfp4.torch import check_positive

        if INPUT_SCALE not in parts:
            return None
        scale = typed_torch({INPUT_SCALE: parts[INPUT_SCALE]}, raw)[INPUT_SCALE].reshape(()).clone()
        check_positive(parts[INPUT_SCALE].name, scale)
        return scale

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        """Under one `weight_scale_2`, by ModelOpt's max rule."""
        import numpy as np

        from halfbyte.formats.nvfp4.codec import amax, decode, encode
        from halfbyte.formats.nvfp4.reference import scale_2_of

        scale_2 = scale_2_of(max(amax(np.ascontiguousarray(weight)) for weight in weights))
        return [decode(encode(weight, scale_2)[0]) for weight in weights]

    def rounded_torch(self, weights: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        from halfbyte.formats.nvfp4.torch import max_rounded

        return super().rounded_torch(weights) if weights[0].device.type == "cpu" else max_rounded(weights)


class WeightOnly(Nvfp4):
    """The same without `input_scale`. A file does not say which it is: what is read is `nvfp4`, with or without."""

    scales = (SCALE, SCALE_2)
    algorithm = "W4A16_NVFP4"
    operand: Operand = "bf16"

    def recognises(self, parts: Parts) -> bool:
        return False


FORMAT, WEIGHT_ONLY = Nvfp4("nvfp4"), WeightOnly("nvfp4-w4a16")
