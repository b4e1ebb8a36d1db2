"""Weights as they are: one tensor, no scales. The format's name is the dtype's, in small letters."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from halfbyte.errors import UnsupportedError
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.storage import WEIGHT, Operand, Parts, Span, StorageFormat, typed, typed_torch, whole_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


class Plain(StorageFormat):
    """One dtype of safetensors. Parts of any name: a bias or a counter is stored so as well."""

    quantized = False
    operand: Operand = "bf16"

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype.lower())
        self.dtype = dtype

    def recognises(self, parts: Parts) -> bool:
        return len(parts) == 1 and next(iter(parts.values())).dtype == self.dtype

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        return next(iter(parts.values())).shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        return prod(shape) * DTYPE_BYTES[self.dtype]

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        return {WEIGHT: whole_rows(parts[WEIGHT], first, stop)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        ((_, values),) = typed(parts, raw).items()
        if values.dtype.kind in "iu":
            raise self._no_weight(parts)
        return values.astype("float32")

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        ((_, values),) = typed_torch(parts, raw).items()
        if not values.is_floating_point():
            if WEIGHT in parts:
                raise self._no_weight(parts)
            return values.clone()  # a table of numbers, such as which experts a token goes to
        return values.to(dtype, copy=True)

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

        return [weight.astype(NUMPY_DTYPES[self.dtype]).astype("float32") for weight in weights]

    def _no_weight(self, parts: Parts) -> UnsupportedError:
        name = next(iter(parts.values())).name
        return UnsupportedError(f"{name}: {self.name} is no weight that can be computed with")


PLAIN = {form.name: form for form in map(Plain, DTYPE_BYTES)}
