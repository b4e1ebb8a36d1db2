"""Reading and writing past the page cache, where the file system can.

A stream of hundreds of gigabytes gains nothing from the cache, and pays for filling it: on the disk this was written
on, copying at once through the cache came to 0.3 GB/s, past it to 0.6 to 1.0. Offsets, lengths and addresses must be
multiples of a block then, so buffers are placed to fit their file's offset, and reads take in the blocks at both ends.
"""

import ctypes
import errno
import os
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 4096
DIRECT_FROM_BYTES = 1 << 18
"""Smaller reads and writes go through the cache."""


class Scratch(threading.local):
    """A thread's own buffers, kept from piece to piece."""

    def __init__(self) -> None:
        self._buffers: dict[int, Bytes] = {}

    def take(self, slot: int, size: int, offset: int = 0) -> Bytes:
        """A buffer of `size` whose address has the remainder of the file's `offset` within a block, with room for the
        rest of the blocks at both ends. Its content is gone when the same thread takes the same slot again."""
        buffer = self._buffers.get(slot)
        if buffer is None or len(buffer) < size + 3 * BLOCK_BYTES:
            buffer = self._buffers[slot] = np.empty(size + 3 * BLOCK_BYTES, np.uint8)
        start = -buffer.ctypes.data % BLOCK_BYTES + offset % BLOCK_BYTES
        return buffer[start : start + size]


class DirectReader:
    """Reads tensors of a checkpoint. Threads may share it; each reads into its own scratch."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._files: dict[str, int | None] = {}
        self._opening = threading.Lock()

    def read(self, tensor: Tensor, scratch: Scratch, slot: int) -> Bytes:
        """The tensor's bytes, in scratch buffer `slot`. Raises CheckpointError as `Checkpoint.read_into`."""
        file = self._file(tensor.shard) if tensor.bytes >= DIRECT_FROM_BYTES else None
        data = scratch.take(slot, tensor.bytes, tensor.start)
        if file is None or not _read_blocks(file, data, tensor.start):
            self._checkpoint.read_into(tensor, data.data)
        return data

    def _file(self, shard: str) -> int | None:
        with self._opening:
            if shard not in self._files:
                self._files[shard] = open_direct(self._checkpoint.folder / shard, os.O_RDONLY)
            return self._files[shard]

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files = {}


def _read_blocks(file: int, data: Bytes, start: int) -> bool:
    """Fill `data` from byte `start`, reading whole blocks into its surroundings. False if it takes another way."""
    before = start % BLOCK_BYTES
    wanted = before + len(data)
    blocks = -(-wanted // BLOCK_BYTES) * BLOCK_BYTES
    around = (ctypes.c_char * blocks).from_address(data.ctypes.data - before)
    try:
        return os.preadv(file, [around], start - before) >= wanted  # it is less at the end of a truncated file
    except OSError:
        return False


def write_direct(file: int, data: memoryview, offset: int) -> tuple[int, int]:
    """Write the whole blocks of `data`, bytes `first` to `last` of it, and return (first, last).

    Nothing is written if its address does not fit `offset` or the file system will not have it.
    """
    first = -offset % BLOCK_BYTES
    last = first + max(0, len(data) - first) // BLOCK_BYTES * BLOCK_BYTES
    address = int(np.frombuffer(data, np.uint8).ctypes.data)
    if len(data) < DIRECT_FROM_BYTES or first == last or (address - offset) % BLOCK_BYTES:
        return 0, 0
    try:
        write_all(file, data[first:last], offset + first)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0, 0
    return first, last


def write_all(file: int, data: memoryview, offset: int) -> None:
    """pwrite until everything is written."""
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def open_direct(path: Path, mode: int) -> int | None:
    """A file for direct access, or None where the file system has no such thing."""
    try:
        return os.open(path, mode | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def reserve(file: int, size: int) -> None:
    """Have the file system set the space aside, if it can without writing it. Raises OSError if the disk is full."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if size and fallocate(file, 0, 0, size) and ctypes.get_errno() in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
