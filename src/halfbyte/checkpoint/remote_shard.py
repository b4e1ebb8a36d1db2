"""A shard that is not here and whose weights are read: by blocks (see `blocks`), never by way of the disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from halfbyte.checkpoint.blocks import Blocks
from halfbyte.checkpoint.object_store import StoreFiles
from halfbyte.checkpoint.remote import RemoteFiles
from halfbyte.errors import CheckpointError


class RemoteShard:
    """As `shard.Shard`. path: of a name for messages. mtime_ns: what the server says it is, an ETag or nothing."""

    def __init__(self, blocks: Blocks, files: "RemoteFiles | StoreFiles", name: str, size: int, header: bytes) -> None:
        self.path, self.bytes = Path(name), size
        self.mtime_ns: int | str = files.pinned(name) or 0
        self.header_sha256 = hashlib.sha256(header).hexdigest()
        self._blocks, self._files = blocks, files
        self._header_bytes = 8 + len(header)

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start`. Raises CheckpointError if the server fails, or has another file by now."""
        if start + len(buffer) > self.bytes:
            raise CheckpointError(f"{self.path}: has {self.bytes} bytes, asked for {start + len(buffer)}")
        self._blocks.read_into(self.path.name, self.bytes, buffer, start)

    def release(self, start: int, length: int) -> None:
        """Say that these bytes will not be read again."""
        if start == self._header_bytes:
            start, length = 0, length + start  # nobody reads the header again either
        self._blocks.release(self.path.name, start, start + length)

    @property
    def known_sha256(self) -> str | None:
        """If the hub states it, or all blocks have come."""
        stated = self._files.stated_sha256(self.path.name)
        return stated if stated is not None else self._blocks.known_sha256(self.path.name, self.bytes)

    def sha256(self, check_stop: Callable[[], None] = lambda: None) -> str:
        """As the hub states it; of other servers as the blocks came."""
        stated = self._files.stated_sha256(self.path.name)
        return stated if stated is not None else self._blocks.sha256(self.path.name, self.bytes, check_stop)

    def close(self) -> None:
        pass
