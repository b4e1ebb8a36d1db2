"""The files of a checkpoint, in a folder or behind HTTP, through one interface. Names and sizes are taken as hostile.

Raises CheckpointError only where the file system or the server fails, and HeaderError for a shard whose first bytes
cannot be a header; what is wrong inside a file is the reader's to judge.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError

T = TypeVar("T")

MOST_FILES = 100_000
"""Files beyond which a folder or a repository is no checkpoint."""

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
    """where: folder or URL, for messages. connections: files to ask for at once."""

    where: str
    remote: bool
    connections: int

    def place(self, name: str) -> str:
        """A file's path or URL, for messages."""
        ...

    def listing(self) -> dict[str, FileInfo] | None:
        """Name -> what is known of the file; None where a server shows no directory."""

    def text(self, name: str) -> bytes | None:
        """A whole file of at most JSON_LIMIT_BYTES; None if it is missing."""

    def header(self, name: str) -> tuple[bytes, int] | None:
        """The bytes of a shard's header and the shard's size; None if it is missing."""

    def stated_sha256(self, name: str) -> str | None:
        """What the hub says the file's SHA-256 is, once the file was asked for."""

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None: ...
    def close(self) -> None: ...


class LocalFiles:
    """A folder, its links followed: a hub's cache and our own copies are full of them. Shards that were asked for stay
    open until `close`."""

    remote = False
    connections = 1

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError if there is no such folder."""
        if not os.path.isdir(folder):  # unlike Path.is_dir, no OSError for a path that is too long
            raise CheckpointError(
                f"{folder}: no such folder", hint="give a folder that holds config.json and *.safetensors"
            )
        self.where = str(folder)
        self.folder = folder
        self.shards: dict[str, Shard] = {}

    def place(self, name: str) -> str:
        return str(self.folder / name)

    def listing(self) -> dict[str, FileInfo]:
        return {name: FileInfo(name, None) for name in sorted(os.listdir(self.folder))}

    def path(self, name: str) -> Path | None:
        """Where a file may be read, None where it is missing or must not be followed."""
        path = self.folder / name
        return path if path.exists() else None

    def text(self, name: str) -> bytes | None:
        path = self.path(name)
        if path is None:
            return None
        try:
            size = path.stat().st_size
            if size > JSON_LIMIT_BYTES:
                raise CheckpointError(f"{path}: {size} bytes are too many for this file")
            return path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None

    def header(self, name: str) -> tuple[bytes, int] | None:
        path = self.path(name)
        if path is None:
            return None
        shard = self.shards[name] = Shard(path)
        return shard.header_text(), shard.bytes

    def stated_sha256(self, name: str) -> str | None:
        return None

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None:
        self.shards[tensor.shard].read_into(buffer, tensor.start + offset)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


class ConfinedFiles(LocalFiles):
    """A folder to be judged: nothing outside of it is read, whatever links and names say; the hub cache's own blobs
    count as inside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._listing: dict[str, FileInfo] | None = None

    def listing(self) -> dict[str, FileInfo]:
        """Of all files, in folders too."""
        if self._listing is None:
            self._listing = self._walk()
        return self._listing

    def path(self, name: str) -> Path | None:
        info = self.listing().get(name)
        return self.folder / name if info is not None and info.problem is None else None

    def stated_sha256(self, name: str) -> str | None:
        info = self.listing().get(name)
        return info.sha256 if info is not None else None

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


def pooled(files: Files, work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """`work` of every name, in order; on as many connections as the target takes, inline where it is a folder."""
    names = list(names)
    if files.connections == 1 or len(names) < 2:
        return [work(name) for name in names]
    from concurrent.futures import ThreadPoolExecutor  # a folder does without

    with ThreadPoolExecutor(files.connections) as pool:
        return list(pool.map(work, names))
