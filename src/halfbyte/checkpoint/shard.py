"""One safetensors file. Weights are read on demand, by position.

Reading is `pread` into the caller's buffer, not a memory map: a file that shrinks or a disk that fails is then an
error with a name, where a map would kill the process with SIGBUS, and resident memory is exactly the buffers.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from halfbyte.checkpoint.header import Header, header_length, parse_header
from halfbyte.checkpoint.writer import hash_open_file
from halfbyte.disk import open_regular, reason
from halfbyte.errors import CheckpointError


class Shard:
    """One open safetensors file. Reads are positional, so any number of threads may share it."""

    known_sha256: str | None = None
    """Nobody has told it: the file is hashed when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        status = os.fstat(self._file)
        self.bytes, self.mtime_ns = status.st_size, status.st_mtime_ns

    def header_text(self) -> bytes:
        """The JSON of its header. Raises HeaderError if its length cannot be true."""
        return self._read(8, header_length(self._read(0, 8), self.bytes, str(self.path)))

    @cached_property
    def header_sha256(self) -> str:
        """Of the bytes of the header: with name, size and time it tells a file from one that took its place."""
        return hashlib.sha256(self.header_text()).hexdigest()

    def header(self) -> Header:
        """Raises HeaderError naming what is wrong with it."""
        return parse_header(self.header_text(), self.bytes, str(self.path), self.path.name)

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start`. Raises CheckpointError if the file ends or the disk fails."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[filled:]], start + filled)
            except OSError as error:
                raise CheckpointError(
                    f"{self.path}: cannot be read at byte {start + filled}: {error.strerror}"
                ) from None
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ends at byte {start + filled}, {len(buffer) - filled} bytes too early",
                    hint="the file changed while it was read; start again with an intact copy",
                )
            filled += count

    def release(self, start: int, length: int) -> None:
        """Say that these bytes will not be read again: the page cache looks after itself."""

    def sha256(self, check_stop: Callable[[], None] = lambda: None) -> str:
        """Of the file that was opened, whatever its name leads to by now. check_stop: see `writer.hash_open_file`."""
        try:
            return hash_open_file(self._file, check_stop)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {reason(error)}") from None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, start: int, length: int) -> bytes:
        buffer = bytearray(min(length, self.bytes - start) if self.bytes > start else 0)
        self.read_into(memoryview(buffer), start)
        return bytes(buffer)
