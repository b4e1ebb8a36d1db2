"""A shard behind HTTP whose weights are read: by blocks, ahead of the reader, kept a while, never on the disk.

A matrix is read twice (for its largest weight, then to encode it), by several threads, front to back. So blocks are
fetched whole, a few ahead of the one asked for, and the last ones stay: every byte comes over the network once. Where
the server states no hash, blocks are hashed as they come.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from halfbyte.checkpoint.object_store import StoreFiles
from halfbyte.checkpoint.remote import RemoteFiles
from halfbyte.errors import CheckpointError

BLOCK_BYTES = 8 << 20
AHEAD = 8
"""Blocks asked for beyond the one that is read: requests in flight."""
KEPT_BYTES = 512 << 20
MOST_EARLY = 2 * AHEAD
"""Blocks that wait for one before them to be hashed; beyond that they are fetched again when the hash is wanted."""


class InOrder:
    """SHA-256 of a file whose blocks come nearly in order."""

    def __init__(self) -> None:
        self._digest, self.next = hashlib.sha256(), 0
        self._early: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def came(self, number: int, block: bytes) -> None:
        with self._lock:
            if number >= self.next and (number == self.next or len(self._early) < MOST_EARLY):
                self._early[number] = block
            while (following := self._early.pop(self.next, None)) is not None:
                self._digest.update(following)
                self.next += 1

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class Blocks:
    """The blocks of all shards of one checkpoint. Any number of threads may read."""

    def __init__(self, files: "RemoteFiles | StoreFiles") -> None:
        self._files = files
        self._pool = ThreadPoolExecutor(AHEAD + 2, "halfbyte-fetch")
        self._blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._digests: dict[str, InOrder] = {}
        self._lock = threading.Lock()

    def read_into(self, name: str, size: int, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start` of a file of `size` bytes."""
        filled = 0
        while filled < len(buffer):
            number, within = divmod(start + filled, BLOCK_BYTES)
            block = self._block(name, size, number)
            count = min(len(block) - within, len(buffer) - filled)
            buffer[filled : filled + count] = memoryview(block)[within : within + count]
            filled += count

    def sha256(self, name: str, size: int, check_stop: Callable[[], None]) -> str:
        """Of all blocks, those fetched that have not come by yet."""
        digest = self._digest(name)
        while (number := digest.next) * BLOCK_BYTES < size:
            check_stop()
            digest.came(number, self._block(name, size, number))
        return digest.hexdigest()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _block(self, name: str, size: int, number: int) -> bytes:
        last = (size - 1) // BLOCK_BYTES
        with self._lock:
            for following in range(number, min(number + AHEAD, last) + 1):
                key = name, following
                if key not in self._blocks:
                    self._blocks[key] = self._pool.submit(self._fetch, name, size, following)
            self._blocks.move_to_end((name, number))
            wanted = self._blocks[name, number]
            while len(self._blocks) * BLOCK_BYTES > KEPT_BYTES:
                _, oldest = self._blocks.popitem(last=False)
                oldest.cancel()
        try:
            return wanted.result()
        except BaseException:
            with self._lock:
                self._blocks.pop((name, number), None)
            raise

    def _fetch(self, name: str, size: int, number: int) -> bytes:
        start = number * BLOCK_BYTES
        block = self._files.block(name, start, min(BLOCK_BYTES, size - start), size)
        if self._files.stated_sha256(name) is None:
            self._digest(name).came(number, block)
        return block

    def _digest(self, name: str) -> InOrder:
        with self._lock:
            return self._digests.setdefault(name, InOrder())


class RemoteShard:
    """As `shard.Shard`. path: of a name for messages. mtime_ns: what the server says it is, an ETag or nothing."""

    def __init__(self, blocks: Blocks, files: "RemoteFiles | StoreFiles", name: str, size: int, header: bytes) -> None:
        self.path, self.bytes = Path(name), size
        self.mtime_ns: int | str = files.pinned(name) or 0
        self.header_sha256 = hashlib.sha256(header).hexdigest()
        self._blocks, self._files = blocks, files

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start`. Raises CheckpointError if the server fails, or has another file by now."""
        if start + len(buffer) > self.bytes:
            raise CheckpointError(f"{self.path}: has {self.bytes} bytes, asked for {start + len(buffer)}")
        self._blocks.read_into(self.path.name, self.bytes, buffer, start)

    def sha256(self, check_stop: Callable[[], None] = lambda: None) -> str:
        """As the hub states it; of other servers as the blocks came."""
        stated = self._files.stated_sha256(self.path.name)
        return stated if stated is not None else self._blocks.sha256(self.path.name, self.bytes, check_stop)

    def close(self) -> None:
        pass
