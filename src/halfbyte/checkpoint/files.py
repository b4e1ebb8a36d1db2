"""The files of a checkpoint, in a folder or behind HTTP, through one interface. Names and sizes are taken as hostile.

Raises CheckpointError only where the file system or the server fails, and HeaderError for a shard whose first bytes
cannot be a header; what is wrong inside a file is the reader's to judge.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.pointers import HINT as POINTER_HINT
from halfbyte.checkpoint.pointers import MOST_BYTES, is_pointer
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.disk import is_missing, kind_of, read_regular, reason
from halfbyte.errors import CheckpointError, Said, said

T = TypeVar("T")

MOST_FILES = 100_000
"""Files beyond which a folder or a repository is no checkpoint."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SKIPPED_FOLDERS = {".git", ".cache", ".halfbyte"}
"""Bookkeeping of downloaders, of git and of an interrupted quantize run; nothing loads from there."""


@dataclass(frozen=True)
class FileInfo:
    """bytes: None where unknown. sha256: as stated by the hub (or by the name of a blob in its cache), not computed.
    problem: why the path may not be followed. leads_out: because it is a link that leads out of the folder."""

    name: str
    bytes: int | None
    sha256: str | None = None
    problem: str | None = None
    leads_out: bool = False


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
    def forget(self, name: str) -> None:
        """A shard whose header was read is no part of the checkpoint."""

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
        try:
            return {name: FileInfo(name, None) for name in sorted(os.listdir(self.folder))}
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be read: {reason(error)}") from None

    def path(self, name: str) -> Path | None:
        """Where a file may be read, None where it is missing or must not be followed."""
        path = self.folder / name
        if not is_missing(path):
            return path
        self.listing()  # nothing is missing from a folder that may not be looked into
        return None

    def text(self, name: str) -> bytes | None:
        path = self.path(name)
        return None if path is None else read_regular(path, JSON_LIMIT_BYTES)

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

    def forget(self, name: str) -> None:
        if name in self.shards:
            self.shards.pop(name).close()

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
        return {info.name: info for info in walked(self.folder)}


def walked(folder: Path, hidden: bool = True) -> Iterator[FileInfo]:
    """All files of a folder and of the folders in it, by name, links looked at and never walked through.

    hidden: with those whose name begins with a dot. Raises CheckpointError for too many, or what cannot be listed.
    """
    root, found = os.path.realpath(folder), 0

    def fail(error: OSError) -> None:
        raise CheckpointError(f"{error.filename}: cannot be read: {reason(error)}") from None

    for inner, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(inner, name))]
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED_FOLDERS and name not in links and (hidden or not name.startswith("."))
        )
        for name in sorted([*names, *links]):
            if name.startswith(".") and not hidden:
                continue
            path = os.path.join(inner, name)
            yield _inspected(path, os.path.relpath(path, folder), root)
            found += 1
            if found > MOST_FILES:
                raise CheckpointError(f"{folder}: more than {MOST_FILES} files are no checkpoint")


def _inspected(path: str, name: str, root: str) -> FileInfo:
    try:
        status = os.stat(path)
    except OSError as error:
        where = f" {os.readlink(path)[:200]}" if os.path.islink(path) else ""
        return FileInfo(name, None, problem=f"cannot be followed{where}: {reason(error)}")
    real = os.path.realpath(path)
    inside = os.path.commonpath([root, real]) == root
    if not inside and os.path.dirname(real) != _blobs(root):
        return FileInfo(name, None, problem=f"is a link that leads out of the folder, to {real[:200]}", leads_out=True)
    if not stat.S_ISREG(status.st_mode) and not (stat.S_ISDIR(status.st_mode) and os.path.islink(path)):
        return FileInfo(name, None, problem=f"is {kind_of(status.st_mode)}, wanted a regular file")
    pointer = not name.endswith(".safetensors") and _is_pointer(path, status)  # a shard says so itself
    problem = "is a git-LFS pointer, not the file itself" if pointer else None
    blob = os.path.basename(real) if not inside and _SHA256.fullmatch(os.path.basename(real)) else None
    return FileInfo(name, status.st_size, blob, problem)


def _is_pointer(path: str, status: os.stat_result) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        return False
    try:
        return is_pointer(read_regular(Path(path), MOST_BYTES))
    except CheckpointError:  # said by whoever reads it
        return False


def _blobs(root: str) -> str | None:
    """Where a hub's cache keeps the files of a snapshot: `snapshots/X/f` is a link to `../../blobs/h`."""
    snapshots = os.path.dirname(root)
    return os.path.join(os.path.dirname(snapshots), "blobs") if os.path.basename(snapshots) == "snapshots" else None


def check_folder(folder: str | Path, follow_links: bool) -> None:
    """Raises CheckpointError for a file that whoever reads or copies all of a checkpoint must not meet.

    That is one that is no regular file, a link that leads nowhere or out of the folder (unless `follow_links`), one
    that may not be read, a pointer of git-LFS. Checked for all at once, because other packages open files by
    themselves. Hidden files are nobody's.
    """
    folder = LocalFiles(Path(folder)).folder
    for info in walked(folder, hidden=False):
        path = folder / info.name
        hint: str | Said | None = None
        problem = info.problem
        if info.leads_out:
            if follow_links and os.path.isdir(path):
                continue
            hint = said("copy the file into the folder, or trust its links with {follow_links}")
            problem = None if follow_links else problem
        if problem is None and not os.path.isdir(path):
            problem = _unreadable(path)
        if problem and "git-LFS" in problem:
            hint = POINTER_HINT
        if problem is not None:
            raise CheckpointError(f"{path}: {problem}", hint=hint)


def _unreadable(path: Path) -> str | None:
    """What is wrong with a file behind a link that leads out, or with the right to read any."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    if not stat.S_ISREG(status.st_mode):
        return f"is {kind_of(status.st_mode)}, wanted a regular file"
    if not os.access(path, os.R_OK):
        return "cannot be read: Permission denied"
    return "is a git-LFS pointer, not the file itself" if _is_pointer(str(path), status) else None


def pooled(files: Files, work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """`work` of every name, in order; on as many connections as the target takes, inline where it is a folder."""
    names = list(names)
    if files.connections == 1 or len(names) < 2:
        return [work(name) for name in names]
    from concurrent.futures import ThreadPoolExecutor  # a folder does without

    with ThreadPoolExecutor(files.connections) as pool:
        return list(pool.map(work, names))
