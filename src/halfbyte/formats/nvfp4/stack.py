"""A stack of experts in NVFP4 as ModelOpt stores it where transformers multiplies from the right: inputs down.

| tensor | dtype | shape of a stack [E, K, N] |
|---|---|---|
| `STACK` | U8 | [E, K/2, N], low nibble first: a byte holds two inputs of one output |
| `STACK_weight_scale` | F8_E4M3 | [E, K/16, N] |
| `STACK_weight_scale_2` | F32 | []; of all experts |
| `STACK_input_scale` | F32 | []; of all experts; not where only weights are quantized |

Of one expert it is the matrix [N, K] of `stored`, codes and scales turned, so that is how it is read. Source:
nvidia-modelopt 0.47, `_export_quantized_weight` of `Llama4TextExperts` and `GptOssExperts` (read and run).
"""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import DTYPE_BYTES, F8_E4M3, F32, U8
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.stored import INPUT_SCALE, SCALE_2, Described, Nvfp4
from halfbyte.formats.storage import SCALE, WEIGHT, Parts, Span, StorageFormat, WholeStack, one_of
from halfbyte.formats.turned import WHOLE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


class TurnedNvfp4(Nvfp4):
    """One expert's matrix out of a stack. Shapes are those of the file: [K/2, N] and [K/16, N]."""

    row_step = WHOLE

    def recognises(self, parts: Parts) -> bool:
        return False

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        halves, rows = parts[WEIGHT].shape
        return rows, 2 * halves

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        return {part: Span(0, parts[part].shape) for part in (WEIGHT, SCALE, SCALE_2)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        straight = {part: straightened(raw[part], parts[part].shape).reshape(-1) for part in (WEIGHT, SCALE)}
        return super().decode(_straight(parts), {**raw, **straight})

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        straight = {part: raw[part].view(parts[part].shape).t().contiguous().view(-1) for part in (WEIGHT, SCALE)}
        return super().decode_torch(_straight(parts), {**raw, **straight}, dtype)


def straightened(raw: "npt.NDArray[np.uint8]", shape: tuple[int, ...]) -> "npt.NDArray[np.uint8]":
    """Bytes of a matrix [n, N] as [N, n]; to write one, the other way round."""
    import numpy as np

    return np.ascontiguousarray(raw.reshape(shape).T)


class _Seen:
    """A stored tensor under another shape."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


def _straight(parts: Parts) -> Parts:
    turned = {part: parts[part] for part in (WEIGHT, SCALE)}
    return {**parts, **{part: _Seen(one.name, one.dtype, one.shape[::-1]) for part, one in turned.items()}}


TURNED = TurnedNvfp4("nvfp4^T")


class Nvfp4Stack(WholeStack, Nvfp4):
    """All of them: logical shape [E, K, N], as the same stack has in 16 bits."""

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        weight, scale = parts[WEIGHT], parts[SCALE]
        experts, halves, outputs = weight.shape if len(weight.shape) == 3 else (0, 0, 0)
        shape = (experts, 2 * halves, outputs)
        wanted = (experts, shape[1] // BLOCK_SIZE, outputs)
        if not halves or shape[1] % BLOCK_SIZE or scale.shape != wanted or scale.dtype != F8_E4M3:
            raise CheckpointError(
                f"{weight.name}: packed {list(weight.shape)} with {scale.dtype} block scales {list(scale.shape)}, "
                f"wanted {F8_E4M3} {list(wanted)} (one for {BLOCK_SIZE} inputs of an expert's output)"
            )
        self.check_scalars(parts)
        return shape

    def of_expert(self, parts: Parts, number: int) -> tuple[StorageFormat, dict[str, Span]]:
        scalars = {part: Span(0, parts[part].shape) for part in (SCALE_2, INPUT_SCALE) if part in parts}
        return TURNED, {part: one_of(parts[part], number) for part in (WEIGHT, SCALE)} | scalars


STACK = Nvfp4Stack("nvfp4")


def stack_tensors(form: Nvfp4, module: str, shape: tuple[int, ...]) -> list[Described]:
    """What a stack [E, K, N] becomes, in file order. form: of its matrices, which says whether there is an
    `input_scale`."""
    experts, inputs, outputs = shape
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        WEIGHT: (U8, (experts, inputs // 2, outputs)),
        SCALE: (F8_E4M3, (experts, inputs // BLOCK_SIZE, outputs)),
        SCALE_2: (F32, ()),
        INPUT_SCALE: (F32, ()),
    }
    return [
        Described(
            module if part == WEIGHT else f"{module}_{part}",
            *layout[part],
            prod(layout[part][1]) * DTYPE_BYTES[layout[part][0]],
        )
        for part in (WEIGHT, *form.scales)
    ]
