"""A tensor's bytes cut into pieces of bounded size, each with the transform that makes it: the unit of reading,
converting and writing. Memory in use is a piece per thread, whatever the tensor's size."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from gguf import GGMLQuantizationType

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.export.lossy import Rounded
from halfbyte.export.rearranged import Columns, Order, RopeRows, Rows
from halfbyte.export.transforms import (
    Computed,
    Copy,
    PackMxfp4,
    PackNvfp4,
    Transform,
    Transpose,
    WidenBf16,
    WidenF16,
)
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.dtypes import BF16, DTYPE_BYTES, F16
from halfbyte.models.llama_cpp import Change

PIECE_ELEMENTS = 1 << 22
"""Elements per piece where a tensor may be cut anywhere: 8 MiB of BF16. Larger pieces were no faster (2 cores)."""


class Piece(NamedTuple):
    """sources: parts of the checkpoint's tensors, the inputs of `transform` in order."""

    sources: tuple[Tensor, ...]
    transform: Transform


class Layout(NamedTuple):
    """What a matrix's rows go through. rope_rows: of one head, to be paired; 0 for none. columns: those that are taken,
    in their order; all where there are none."""

    rope_rows: int = 0
    columns: Order = ()

    def rows(self, columns: int) -> int:
        """How many to a piece, where a piece is whole rows of `columns` elements."""
        return self.rope_rows or max(1, PIECE_ELEMENTS // columns)

    def taken(self, columns: int) -> int:
        """How many columns of a row are taken."""
        return sum(map(len, self.columns)) or columns

    def before(self, inner: Transform, columns: int, item_bytes: int) -> Transform:
        if self.rope_rows:
            return RopeRows(inner, self.rope_rows)
        return Columns(inner, columns, item_bytes, self.columns) if self.columns else inner


AS_IT_IS = Layout()


def plain(tensor: Tensor, widen: bool = False, layout: Layout = AS_IT_IS, change: Change = "") -> Iterator[Piece]:
    """An unquantized tensor as it is, or widened to float32, or what is computed of it."""
    total, row = prod(tensor.shape), prod(tensor.shape[1:])
    step = layout.rows(row) * row if layout != AS_IT_IS else PIECE_ELEMENTS
    for first in range(0, total, step):
        count = min(step, total - first)
        made = count // row * layout.taken(row) if layout.columns else count
        inner = Computed(made, tensor.dtype, change) if change else _plain_transform(tensor.dtype, made, widen)
        yield Piece((tensor.part(first, (count,)),), layout.before(inner, row, DTYPE_BYTES[tensor.dtype]))


def _plain_transform(dtype: str, elements: int, widen: bool) -> Transform:
    if widen and dtype == BF16:
        return WidenBf16(elements)
    if widen and dtype == F16:
        return WidenF16(elements)
    return Copy(elements * DTYPE_BYTES[dtype])


def nvfp4(entry: Entry, rope_rows: int = 0) -> Iterator[Piece]:
    """An NVFP4 matrix [N, K] by whole rows (by heads where rows are paired)."""
    rows, columns = entry.shape
    codes, scales = entry.tensors["weight"], entry.tensors["weight_scale"]
    step = rope_rows or max(1, 2 * PIECE_ELEMENTS // columns)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        inputs = [
            tensor.part(first * tensor.shape[1], (count, tensor.shape[1])) for tensor in (codes, scales)
        ]  # U8 and F8_E4M3: an element is a byte
        yield Piece(tuple(inputs), Layout(rope_rows).before(PackNvfp4(count * columns), columns, 1))


def transposed(tensor: Tensor) -> Piece:
    """A whole matrix [rows, columns] as [columns, rows]."""
    rows, columns = tensor.shape
    return Piece((tensor,), Transpose(rows, columns, DTYPE_BYTES[tensor.dtype]))


def rounded(
    entry: Entry, target: GGMLQuantizationType, scale_2: float = 1.0, layout: Layout = AS_IT_IS
) -> Iterator[Piece]:
    """A matrix [N, K] by whole rows (by heads where rows are paired), rounded. scale_2: of one in NVFP4."""
    rows, columns = entry.shape
    parts, stored = _stored(entry)
    step = layout.rows(columns)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        inner: Transform = Rounded(count, layout.taken(columns), target, stored, scale_2)
        inputs = [part.part(first * part.shape[1], (count, part.shape[1])) for part in parts]
        yield Piece(tuple(inputs), layout.before(inner, columns, DTYPE_BYTES[parts[0].dtype]))


def _stored(entry: Entry) -> tuple[tuple[Tensor, ...], str]:
    """The tensors of a matrix, and its dtype, "" for NVFP4."""
    if entry.format == NVFP4:
        return (entry.tensors["weight"], entry.tensors["weight_scale"]), ""
    (tensor,) = entry.tensors.values()
    return (tensor,), tensor.dtype


def turned(entry: Entry, outputs: range, target: GGMLQuantizationType | None, scale_2: float = 1.0) -> Piece:
    """Some outputs of one expert's matrix whose inputs run down, [K, N], as [outputs, K]: as it is, or rounded."""
    inputs, columns = entry.shape
    parts, stored = _stored(entry)
    size = len(outputs) * inputs
    inner: Transform
    if target is not None:
        inner = Rounded(len(outputs), inputs, target, stored, scale_2)
    else:
        inner = _plain_transform(stored, size, False) if stored else PackNvfp4(size)
    return Piece(parts, Columns(inner, columns, DTYPE_BYTES[parts[0].dtype], (outputs,), turned=True))


def mxfp4_rows(blocks: Tensor, scales: Tensor, order: range) -> Piece:
    """Some rows of one expert's matrix in MXFP4: codes [N, K/32, 16] and scales [N, K/32]."""
    rows, across, _ = blocks.shape
    return Piece((blocks, scales), Rows(PackMxfp4(len(order) * across), rows, (order,)))
