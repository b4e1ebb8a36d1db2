"""A tensor's bytes cut into pieces of bounded size, each with the transform that makes it: the unit of reading,
converting and writing. Memory in use is a piece per thread, whatever the tensor's size."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from gguf import GGMLQuantizationType

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.export.lossy import Rounded
from halfbyte.export.transforms import Copy, PackNvfp4, RopeRows, Transform, Transpose, WidenBf16, WidenF16
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.dtypes import BF16, DTYPE_BYTES, F16

PIECE_ELEMENTS = 1 << 22
"""Elements per piece where a tensor may be cut anywhere: 8 MiB of BF16. Larger pieces were no faster (2 cores)."""


class Piece(NamedTuple):
    """sources: parts of the checkpoint's tensors, the inputs of `transform` in order."""

    sources: tuple[Tensor, ...]
    transform: Transform


def plain(tensor: Tensor, widen: bool = False, rope_rows: int = 0) -> Iterator[Piece]:
    """An unquantized tensor as it is, or widened to float32. rope_rows: rows of one head to be paired, 0 for none."""
    total, row = prod(tensor.shape), prod(tensor.shape[1:])
    step = rope_rows * row or PIECE_ELEMENTS
    for first in range(0, total, step):
        count = min(step, total - first)
        transform = _plain_transform(tensor.dtype, count, widen)
        if rope_rows:
            transform = RopeRows(rope_rows, transform)
        yield Piece((tensor.part(first, (count,)),), transform)


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
        transform: Transform = PackNvfp4(count * columns)
        if rope_rows:
            transform = RopeRows(rope_rows, transform)
        inputs = [
            tensor.part(first * tensor.shape[1], (count, tensor.shape[1])) for tensor in (codes, scales)
        ]  # U8 and F8_E4M3: an element is a byte
        yield Piece(tuple(inputs), transform)


def transposed(tensor: Tensor) -> Piece:
    """A whole matrix [rows, columns] as [columns, rows]."""
    rows, columns = tensor.shape
    return Piece((tensor,), Transpose(rows, columns, DTYPE_BYTES[tensor.dtype]))


def rounded(entry: Entry, target: GGMLQuantizationType, scale_2: float = 1.0, rope_rows: int = 0) -> Iterator[Piece]:
    """A matrix [N, K] by whole rows (by heads where rows are paired), rounded. scale_2: of one in NVFP4."""
    rows, columns = entry.shape
    parts: tuple[Tensor, ...]
    if entry.format == NVFP4:
        parts, stored = (entry.tensors["weight"], entry.tensors["weight_scale"]), ""
    else:
        (tensor,) = entry.tensors.values()
        parts, stored = (tensor,), tensor.dtype
    step = rope_rows or max(1, PIECE_ELEMENTS // columns)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        transform: Transform = Rounded(count, columns, target, stored, scale_2)
        if rope_rows:
            transform = RopeRows(rope_rows, transform)
        inputs = [part.part(first * part.shape[1], (count, part.shape[1])) for part in parts]
        yield Piece(tuple(inputs), transform)
