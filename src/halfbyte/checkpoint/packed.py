"""A weight that its source keeps in another form than rows of numbers, seen as the matrix that it stands for."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.storage import StorageFormat


@dataclass(frozen=True, slots=False)
class Packed:
    """What of `Tensor` whoever reads rows asks for. It is decoded to float32, tile by tile.

    form: how it is stored. shape: of the matrix. parts: its stored tensors, numbers first. bytes: in the source, scales
    included.
    """

    form: StorageFormat
    shape: tuple[int, ...]
    parts: dict[str, Tensor]

    @property
    def dtype(self) -> str:
        """Of the matrix once it is written as it is, rounded once."""
        return self.form.kept_as

    @classmethod
    def of(cls, entry: Entry) -> "Packed":
        return cls(entry.form, entry.shape, dict(entry.tensors))

    @property
    def name(self) -> str:
        """Of the tensor that holds its numbers."""
        return next(iter(self.parts.values())).name

    @cached_property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.parts.values())

    @property
    def plain_bytes(self) -> int:
        """Of the matrix in `dtype`."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tensor.shard for tensor in self.parts.values()))


Source = Tensor | Packed
"""Where a matrix comes from."""
