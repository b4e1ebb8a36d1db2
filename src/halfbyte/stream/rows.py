"""Activations of all sequences: one row a token, in device memory, main memory or a mapped spill file.

A mapped file is shared with the kernel's page cache: its pages are let go from the process after every few megabytes
(MADV_DONTNEED keeps what was written), so that resident memory stays small whatever the file's size.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from halfbyte.checkpoint.writer import output_error
from halfbyte.errors import OutputError

Place = Literal["device", "memory", "file"]

RESIDENT_BYTES = 64 << 20
"""Of a mapped file, between two calls of madvise."""

FAULT_BYTES = 64 << 10
"""What one read of a mapped row may make resident: Linux maps the 16 pages around it."""


class Rows:
    """[offsets[-1], width] numbers of one dtype; sequence i is rows offsets[i] to offsets[i + 1]."""

    def __init__(
        self,
        offsets: Sequence[int],
        width: int,
        dtype: torch.dtype,
        place: Place,
        device: torch.device,
        path: Path | None = None,
    ) -> None:
        """path: of the spill file, for place "file". Raises OutputError where the disk has no room for it."""
        self.offsets, self.device, self.place = offsets, device, place
        self.bytes = offsets[-1] * width * dtype.itemsize
        self._map: mmap.mmap | None = None
        self._touched = 0
        if place == "file" and self.bytes:
            assert path is not None
            self._map = _mapped(path, self.bytes)
            self.data = torch.frombuffer(self._map, dtype=dtype).view(offsets[-1], width)
        else:
            self.data = torch.empty(offsets[-1], width, dtype=dtype, device=device if place == "device" else "cpu")

    def _sequence(self, first: int, last: int | None = None) -> slice:
        return slice(self.offsets[first], self.offsets[(first if last is None else last) + 1])

    def read(self, first: int, last: int | None = None) -> Tensor:
        """[T, width] of one sequence, or of consecutive ones, on the compute device; do not write into it."""
        rows = self.data[self._sequence(first, last)]
        self._touch(rows.numel() * rows.element_size())
        return rows.clone() if self._map is not None else rows.to(self.device)

    def write(self, rows: Tensor, first: int, last: int | None = None) -> None:
        self.data[self._sequence(first, last)] = rows.to(self.data.device)
        self._touch(rows.numel() * rows.element_size())

    def gather(self, index: Tensor) -> Tensor:
        """Rows by number, int64 [n] -> [n, width] on the compute device."""
        result = torch.empty(len(index), self.data.shape[1], dtype=self.data.dtype, device=self.data.device)
        index = index.to(self.data.device)
        for part in self._parts(len(index)):
            torch.index_select(self.data, 0, index[part], out=result[part])
            self._touch((part.stop - part.start) * FAULT_BYTES)
        return result.to(self.device)

    def add(self, index: Tensor, values: Tensor) -> None:
        """Add [n, width] to distinct rows."""
        index, values = index.to(self.data.device), values.to(self.data.device, self.data.dtype)
        for part in self._parts(len(index)):
            self.data.index_add_(0, index[part], values[part])
            self._touch((part.stop - part.start) * FAULT_BYTES)

    def zero(self) -> None:
        step = max(1, RESIDENT_BYTES // max(1, self.data.shape[1] * self.data.element_size()))
        for start in range(0, len(self.data), step):
            self.data[start : start + step] = 0
            self._touch(RESIDENT_BYTES)

    def flush(self, path: Path) -> str:
        """Make a mapped file's rows last; their SHA-256. path: of the file, for the error."""
        assert self._map is not None
        try:
            self._map.flush()
        except OSError as error:
            raise output_error(path, error) from None
        self._let_go()
        digest = hashlib.sha256()
        for part in self._bytes():
            digest.update(part)
        return digest.hexdigest()

    def save(self, path: Path) -> str:
        """Write a copy that lasts; its SHA-256."""
        digest = hashlib.sha256()
        try:
            with open(path, "wb") as file:
                for part in self._bytes():
                    file.write(part)
                    digest.update(part)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(path, error) from None
        return digest.hexdigest()

    def load(self, path: Path) -> None:
        """Read a copy back. Raises OutputError if it is not what `save` wrote."""
        with open(path, "rb") as file:
            for part in self._blocks():
                buffer = torch.empty(part.shape, dtype=part.dtype)
                if file.readinto(buffer.view(torch.uint8).numpy().data) != buffer.numel() * buffer.element_size():
                    raise OutputError(f"{path}: is too short", hint="remove the work folder and start again")
                part.copy_(buffer)
                self._touch(RESIDENT_BYTES)

    def _bytes(self) -> Iterator[memoryview]:
        for part in self._blocks():
            yield part.cpu().contiguous().view(torch.uint8).numpy().data
            self._touch(RESIDENT_BYTES)

    def _blocks(self) -> Sequence[Tensor]:
        blocks: Sequence[Tensor] = self.data.split(
            max(1, RESIDENT_BYTES // max(1, self.data.shape[1] * self.data.element_size()))
        )
        return blocks

    def _parts(self, count: int) -> list[slice]:
        """All at once in memory; by resident size in a mapped file."""
        step = count if self._map is None else RESIDENT_BYTES // FAULT_BYTES
        return [slice(start, min(start + step, count)) for start in range(0, count, max(1, step))]

    def _touch(self, size: int) -> None:
        self._touched += size
        if self._map is not None and self._touched >= RESIDENT_BYTES:
            self._let_go()

    def _let_go(self) -> None:
        assert self._map is not None
        self._map.madvise(mmap.MADV_DONTNEED)
        self._touched = 0


def _mapped(path: Path, size: int) -> mmap.mmap:
    """A file of `size` bytes, its blocks reserved: a full disk is an error now, not a SIGBUS later."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size != size:
                os.ftruncate(file, 0)
                os.posix_fallocate(file, 0, size)
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError as error:
        raise output_error(path, error) from None
