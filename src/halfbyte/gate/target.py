"""The files of a checkpoint, local or remote, behind one interface. Every name and size is taken as hostile.

Raises CheckpointError only where the file system or the server fails; what is wrong inside a file is the reader's
to judge.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from halfbyte.checkpoint.header import header_length
from halfbyte.checkpoint.source import Shard, Tensor
from halfbyte.errors import CheckpointError, UsageError, said

TEXT_LIMIT_BYTES = 256_000_000
MOST_FILES = 100_000
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SKIPPED_FOLDERS = {".git", ".cache", ".halfbyte"}
"""Bookkeeping of downloaders, of git and of an interrupted quantize run; nothing loads from there."""


@dataclass(frozen=True)
class FileInfo:
    """bytes: None where unknown. sha256: as stated by the hub (or by the name of a blob in its cache), not computed.
    problem: why the path may not be followed."""

    name: str
    bytes: int | None
    sha256: str | None = None
    problem: str | None = None


class Files(Protocol):
    """listing: name -> FileInfo, None where a server shows no directory. connections: files to ask for at once."""

    where: str
    remote: bool
    connections: int

    def listing(self) -> dict[str, FileInfo] | None: ...
    def text(self, name: str) -> bytes | None:
        """A whole file of at most TEXT_LIMIT_BYTES; None if it is missing."""

    def header(self, name: str) -> tuple[bytes, int] | None:
        """The bytes of a shard's header and the shard's size; None if it is missing. Raises CheckpointError."""

    def stated_sha256(self, name: str) -> str | None:
        """What the hub says the file's SHA-256 is, once the file was asked for."""

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None: ...
    def close(self) -> None: ...


class LocalFiles:
    """A folder. Nothing outside of it is read, whatever links and names say; the hub cache's own blobs count as
    inside."""

    remote = False
    connections = 1

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.folder = folder
        self._shards: dict[str, Shard] = {}
        self._listing: dict[str, FileInfo] | None = None

    def listing(self) -> dict[str, FileInfo]:
        if self._listing is None:
            self._listing = self._walk()
        return self._listing

    def path(self, name: str) -> Path | None:
        """Where a file may be read, None where it is missing or must not be followed."""
        info = self.listing().get(name)
        return self.folder / name if info is not None and info.problem is None else None

    def text(self, name: str) -> bytes | None:
        path = self.path(name)
        if path is None:
            return None
        size = self.listing()[name].bytes or 0
        if size > TEXT_LIMIT_BYTES:
            raise CheckpointError(f"{path}: {size} bytes are too many for this file")
        try:
            return path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None

    def header(self, name: str) -> tuple[bytes, int] | None:
        path = self.path(name)
        if path is None:
            return None
        shard = self._shards[name] = Shard(path)
        first = bytearray(min(8, shard.bytes))
        shard.read_into(memoryview(first), 0)
        text = bytearray(header_length(bytes(first), shard.bytes, str(path)))
        shard.read_into(memoryview(text), 8)
        return bytes(text), shard.bytes

    def stated_sha256(self, name: str) -> str | None:
        info = self.listing().get(name)
        return info.sha256 if info is not None else None

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None:
        self._shards[tensor.shard].read_into(buffer, tensor.start + offset)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()

    def _walk(self) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        root = os.path.realpath(self.folder)
        for folder, folders, names in os.walk(self.folder):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and name not in links)
            for name in sorted([*names, *links]):
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, self.folder)
                found[relative] = _inspected(path, relative, root)
                if len(found) > MOST_FILES:
                    raise CheckpointError(f"{self.folder}: more than {MOST_FILES} files are no checkpoint")
        return found


def _inspected(path: str, name: str, root: str) -> FileInfo:
    try:
        status = os.stat(path)
    except OSError as error:
        return FileInfo(name, None, problem=f"cannot be followed: {error.strerror}")
    real = os.path.realpath(path)
    blobs = os.path.join(os.path.dirname(os.path.dirname(root)), "blobs")
    inside = os.path.commonpath([root, real]) == root
    if not inside and os.path.dirname(real) != blobs:
        return FileInfo(name, None, problem=f"is a link that leads out of the folder, to {real[:200]}")
    if not stat.S_ISREG(status.st_mode):
        return FileInfo(name, None, problem="is no regular file")
    blob = os.path.basename(real) if not inside and _SHA256.fullmatch(os.path.basename(real)) else None
    return FileInfo(name, status.st_size, blob)


class RemoteTarget:
    """A checkpoint behind HTTP range requests: headers and small files, never a weight."""

    remote = True

    def __init__(self, target: str) -> None:
        from halfbyte.checkpoint.remote import CONNECTIONS, RemoteFiles  # httpx is slow to import

        self.connections = CONNECTIONS
        self._files = RemoteFiles(target)
        self.where = self._files.base
        self._listing: dict[str, FileInfo] | None = None
        self._target = target
        self._asked = False

    def listing(self) -> dict[str, FileInfo] | None:
        if not self._asked:
            self._asked = True
            rows = self._files.hub_listing() if HUB_NAME.fullmatch(self._target) else None
            if rows is not None:
                self._listing = {name: FileInfo(name, size, sha256) for name, size, sha256 in rows}
        return self._listing

    def text(self, name: str) -> bytes | None:
        if self._listing is not None and name not in self._listing:
            return None
        return self._files.text(name, TEXT_LIMIT_BYTES)

    def header(self, name: str) -> tuple[bytes, int] | None:
        return self._files.header_text(name)

    def stated_sha256(self, name: str) -> str | None:
        listed = self._listing.get(name) if self._listing is not None else None
        return listed.sha256 if listed is not None and listed.sha256 else self._files.etags.get(name)

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None:
        raise UsageError(
            f"{self.where}: weights are not read over the network", hint=said("download it, or use {depth} headers")
        )

    def close(self) -> None:
        self._files.close()


def open_target(target: str) -> Files:
    """A folder, a hub name or a base URL. Raises UsageError for what is none of these."""
    if target.startswith(("http://", "https://")):
        return RemoteTarget(target)
    if os.path.isdir(target):
        return LocalFiles(Path(target))
    if not os.path.exists(target) and HUB_NAME.fullmatch(target):
        return RemoteTarget(target)
    raise UsageError(
        f"{target[:300]}: no such checkpoint",
        hint="give a folder, a hub name (owner/name) or an https:// base URL",
    )
