"""Reading tensors in cache-sized pieces, and the buffers to encode them into. One of each per thread."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

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
        self._buffer = bytearray(CHUNK_BYTES)

    def chunks(self, tensor: Tensor) -> Iterator[tuple[int, memoryview]]:
        """A tensor's bytes as (first byte, bytes)."""
        for start in range(0, tensor.bytes, CHUNK_BYTES):
            yield start, self._read(tensor, start, min(CHUNK_BYTES, tensor.bytes - start))

    def rows(self, tensor: Tensor) -> Iterator[tuple[int, Weight]]:
        """A matrix as (first row, rows), at least one row at a time."""
        rows, columns = tensor.shape
        dtype = NUMPY_DTYPES[tensor.dtype]
        row_bytes = columns * dtype.itemsize
        step = max(1, CHUNK_BYTES // row_bytes)
        for first_row in range(0, rows, step):
            chunk = self._read(tensor, first_row * row_bytes, min(step, rows - first_row) * row_bytes)
            yield first_row, np.frombuffer(chunk, dtype).reshape(-1, columns)

    def part(self, tensor: Tensor, start: int, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes of a tensor from byte `start`."""
        return np.frombuffer(self._read(tensor, start, size), np.uint8)

    def _read(self, tensor: Tensor, start: int, size: int) -> memoryview:
        self._check_stop()
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        chunk = memoryview(self._buffer)[:size]
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
