"""A plain matrix that is stored the other way round, or the left or right part of one: what a stack of experts holds
where its inputs run down instead of across ([E, in, out]).

No checkpoint has such a weight by itself, so no file is recognised as one: whoever cuts a stack apart says so. It is
read as a whole: its rows are columns of the file. `bf16^T` is all of it, `bf16^T[0/2]` the first half of its outputs.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from halfbyte.formats.plain import PLAIN, Plain
from halfbyte.formats.storage import WEIGHT, Parts, Span, StorageFormat

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

_NAME = re.compile(r"(\w+)\^T(?:\[(\d)/(\d)\])?")


WHOLE = 1 << 40
"""As `row_step`: more rows than any matrix has, it is never cut."""


class Turned(StorageFormat):
    """plain: how it is stored. part of parts: which of as many equal shares of the outputs."""

    quantized = False
    row_step = WHOLE

    def __init__(self, plain: Plain, part: int = 0, parts: int = 1) -> None:
        super().__init__(f"{plain.name}^T" + (f"[{part}/{parts}]" if parts > 1 else ""))
        self._plain, self._part, self._parts = plain, part, parts
        self.kept_as = plain.dtype

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        columns, rows = parts[WEIGHT].shape
        return rows // self._parts, columns

    def bytes(self, shape: tuple[int, ...]) -> int:
        return self._plain.bytes(shape)

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        return {WEIGHT: Span(0, parts[WEIGHT].shape)}

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        import numpy as np

        values = self._plain.decode(parts, raw)
        return np.ascontiguousarray(values[:, self._own(values.shape[1])].T)

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        values = self._plain.decode_torch(parts, raw, dtype)
        return values[:, self._own(values.shape[1])].t().contiguous()

    def _own(self, outputs: int) -> slice:
        width = outputs // self._parts
        return slice(self._part * width, (self._part + 1) * width)


def called(name: str) -> Turned | None:
    """The format that a name spells, None if it is another's."""
    found = _NAME.fullmatch(name)
    if found is None or found[1] not in PLAIN:
        return None
    return Turned(PLAIN[found[1]], int(found[2] or 0), int(found[3] or 1))
