"""The same numbers in another order, and only some of them: what stands before another transform.

llama.cpp wants rotary pairs side by side, the heads of a delta net in its own order, and every expert's gate and up
apart, inputs across. What takes every number can be undone; of what takes a part `verify` makes the part again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halfbyte.export.transforms import Bytes, Transform

Order = tuple[range, ...]
"""Which rows or columns, in the order in which they come."""


@dataclass(frozen=True, slots=True)
class Rearranged:
    """`inner` behind `arranged`, which a subclass fills in together with `restored`."""

    inner: Transform

    @property
    def output_bytes(self) -> int:
        return self.inner.output_bytes

    @property
    def reversible(self) -> bool:
        return self.inner.reversible

    def arranged(self, inputs: Sequence[Bytes]) -> list[Bytes]:
        """The inputs in the new order."""
        raise NotImplementedError

    def restored(self, arranged: Sequence[Bytes], inputs: Sequence[Bytes]) -> None:
        """Fill `inputs` from what `arranged` made of them."""
        raise NotImplementedError

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        return self.inner.forward(self.arranged(inputs), output)

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        arranged = [np.empty_like(data) for data in inputs]
        sound = self.inner.inverse(output, arranged)
        self.restored(arranged, inputs)
        return sound


@dataclass(frozen=True, slots=True)
class RopeRows(Rearranged):
    """One attention head whose rows llama.cpp wants with rotary pairs side by side.

    Row i of the first half and row i of the second become rows 2i and 2i+1: the `llama` architecture rotates
    neighbours, the published weights halves. rows: rows of the head, in each input alike.
    """

    rows: int

    def arranged(self, inputs: Sequence[Bytes]) -> list[Bytes]:
        return [data.reshape(2, self.rows // 2, -1).swapaxes(0, 1).reshape(-1) for data in inputs]

    def restored(self, arranged: Sequence[Bytes], inputs: Sequence[Bytes]) -> None:
        for data, pairs in zip(inputs, arranged, strict=True):
            data[:] = pairs.reshape(self.rows // 2, 2, -1).swapaxes(0, 1).reshape(-1)


@dataclass(frozen=True, slots=True)
class Rows(Rearranged):
    """Some rows of a matrix. rows: it has, in each input alike."""

    rows: int
    order: Order

    @property
    def reversible(self) -> bool:
        return self.inner.reversible and sum(map(len, self.order)) == self.rows

    def arranged(self, inputs: Sequence[Bytes]) -> list[Bytes]:
        return [
            np.concatenate([data.reshape(self.rows, -1)[_slice(some)] for some in self.order]).reshape(-1)
            for data in inputs
        ]

    def restored(self, arranged: Sequence[Bytes], inputs: Sequence[Bytes]) -> None:
        for data, taken in zip(inputs, arranged, strict=True):
            rows, first = data.reshape(self.rows, -1), 0
            for some in self.order:
                rows[_slice(some)] = taken.reshape(self.rows, -1)[first : first + len(some)]
                first += len(some)


@dataclass(frozen=True, slots=True)
class Columns(Rearranged):
    """Some columns of a matrix. columns: it has, in each input alike, of `item_bytes`. turned: they become rows."""

    columns: int
    item_bytes: int
    order: Order
    turned: bool = False

    @property
    def reversible(self) -> bool:
        return self.inner.reversible and sum(map(len, self.order)) == self.columns

    def arranged(self, inputs: Sequence[Bytes]) -> list[Bytes]:
        found = []
        for data in inputs:
            matrix = self._matrix(data)
            taken = [matrix[:, _slice(some)] for some in self.order]
            found.append(np.concatenate([part.T for part in taken]) if self.turned else np.concatenate(taken, axis=1))
        return [matrix.reshape(-1).view(np.uint8) for matrix in found]

    def restored(self, arranged: Sequence[Bytes], inputs: Sequence[Bytes]) -> None:
        for data, taken in zip(inputs, arranged, strict=True):
            matrix, first = self._matrix(data), 0
            items = taken.view(matrix.dtype)
            seen = items.reshape(self.columns, -1).T if self.turned else items.reshape(-1, self.columns)
            for some in self.order:
                matrix[:, _slice(some)] = seen[:, first : first + len(some)]
                first += len(some)

    def _matrix(self, data: Bytes) -> Bytes:
        return data.view(f"u{self.item_bytes}").reshape(-1, self.columns)


def _slice(some: range) -> slice:
    return slice(some.start, some.stop, some.step)
