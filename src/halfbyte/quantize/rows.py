"""Reading tensors in cache-sized pieces, and the buffers to encode them into. One of each per thread."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.packed import Matrix, Packed, Source, Stacked
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.nvfp4.codec import Weight
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE

CHUNK_BYTES = 1 << 20
"""Source bytes handled at a time: about the second-level cache, so that encoding reads from there."""


class Stopped(Exception):
    """Another thread failed or the user pressed Ctrl-C."""


def _never_stop() -> None:
    pass


class RowReader:
    """Reads tensors of one checkpoint through one buffer: what it yields is valid until the next piece.

    check_stop is called before every read and raises Stopped when the work is over.
    """

    def __init__(self, source: Checkpoint, check_stop: Callable[[], None] = _never_stop) -> None:
        self._source, self._check_stop = source, check_stop
        self._buffers = {"": bytearray(CHUNK_BYTES)}

    def chunks(self, tensor: Source) -> Iterator[tuple[int, memoryview]]:
        """A tensor's bytes as (first byte, bytes); of a packed one those of its matrix, rounded once to `dtype`, of a
        stack those of its experts, inputs down."""
        if isinstance(tensor, Stacked):
            each = tensor.plain_bytes // len(tensor.matrices)
            for number, matrix in enumerate(tensor.matrices):
                turned = self.matrix(matrix).T.astype(NUMPY_DTYPES[tensor.dtype])
                yield number * each, np.ascontiguousarray(turned).view(np.uint8).reshape(-1).data
            return
        if isinstance(tensor, Packed):
            dtype = NUMPY_DTYPES[tensor.dtype]
            for first_row, rows in self.rows(tensor):
                start = first_row * tensor.shape[1] * dtype.itemsize
                yield start, np.ascontiguousarray(rows.astype(dtype)).view(np.uint8).reshape(-1).data
            return
        for start in range(0, tensor.bytes, CHUNK_BYTES):
            yield start, self._read(tensor, start, min(CHUNK_BYTES, tensor.bytes - start))

    def matrix(self, tensor: Matrix) -> npt.NDArray[np.float32]:
        """All of a matrix in float32."""
        return np.concatenate([rows.astype(np.float32) for _, rows in self.rows(tensor)])

    def rows(self, tensor: Matrix) -> Iterator[tuple[int, Weight]]:
        """A matrix as (first row, rows), at least one row at a time; a packed one decoded to float32."""
        rows, columns = tensor.shape
        if isinstance(tensor, Packed):
            step = max(1, CHUNK_BYTES // (4 * columns) // tensor.form.row_step) * tensor.form.row_step
            for first_row in range(0, rows, step):
                yield first_row, self._decoded(tensor, first_row, min(rows, first_row + step))
            return
        dtype = NUMPY_DTYPES[tensor.dtype]
        row_bytes = columns * dtype.itemsize
        step = max(1, CHUNK_BYTES // row_bytes)
        for first_row in range(0, rows, step):
            chunk = self._read(tensor, first_row * row_bytes, min(step, rows - first_row) * row_bytes)
            yield first_row, np.frombuffer(chunk, dtype).reshape(-1, columns)

    def part(self, tensor: Tensor, start: int, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes of a tensor from byte `start`."""
        return np.frombuffer(self._read(tensor, start, size), np.uint8)

    def raw_rows(self, packed: Packed) -> Iterator[tuple[int, dict[str, npt.NDArray[np.uint8]]]]:
        """A packed matrix as (first row, bytes of its parts), in the pieces of `rows`."""
        rows, columns = packed.shape
        step = max(1, CHUNK_BYTES // (4 * columns) // packed.form.row_step) * packed.form.row_step
        for first_row in range(0, rows, step):
            yield first_row, self._raw(packed, first_row, min(rows, first_row + step))[1]

    def release(self, tensor: Source) -> None:
        """Say that it will not be read again."""
        for part in (tensor,) if isinstance(tensor, Tensor) else tensor.parts.values():
            self._source.release(part)

    def _decoded(self, packed: Packed, first: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows [first, stop) in float32."""
        parts, raw = self._raw(packed, first, stop)
        return packed.form.decode(parts, raw)

    def _raw(self, packed: Packed, first: int, stop: int) -> tuple[dict[str, Tensor], dict[str, npt.NDArray[np.uint8]]]:
        """Rows [first, stop) as they are stored: the parts as tensors of their own, and their bytes."""
        spans = packed.form.rows(packed.parts, first, stop)
        parts = {part: packed.parts[part].part(*span) for part, span in spans.items()}
        return parts, {
            part: np.frombuffer(self._read(tensor, 0, tensor.bytes, part), np.uint8) for part, tensor in parts.items()
        }

    def _read(self, tensor: Tensor, start: int, size: int, buffer: str = "") -> memoryview:
        """buffer: whose content is lost; parts that are needed together have one each."""
        self._check_stop()
        if size > len(self._buffers.get(buffer, b"")):
            self._buffers[buffer] = bytearray(size)
        chunk = memoryview(self._buffers[buffer])[:size]
        self._source.read_into(tensor, chunk, start)
        return chunk


class EncodeBuffer:
    """Reused room for the codes and block scales of one piece."""

    def __init__(self) -> None:
        self._codes = np.empty(0, np.uint8)
        self._scales = np.empty(0, np.uint8)

    def views(self, elements: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Flat arrays for the codes and the scales of `elements` weights."""
        if self._codes.size < elements // 2:
            self._codes = np.empty(elements // 2, np.uint8)
            self._scales = np.empty(elements // BLOCK_SIZE, np.uint8)
        return self._codes[: elements // 2], self._scales[: elements // BLOCK_SIZE]
