"""A safetensors file being built under a temporary name, written at known offsets by any number of threads.

Nothing looks finished before it is: the file is filled under `NAME.partial`, synced, hashed as it lies on disk, and
only then renamed.
"""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from halfbyte.disk import open_regular, reason
from halfbyte.errors import HalfbyteError, OutputError, Said, said

HASH_CHUNK_BYTES = 4 << 20
WRITE_BEHIND_BYTES = 32 << 20
"""Written bytes after which the kernel is told to start putting them on disk, so that the final sync finds little."""

LONGEST_NAME_BYTES = 255
"""Of a file's name, on every file system that Linux has."""

_sync_file_range = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)  # Linux only; a hint
_SYNC_FILE_RANGE_WRITE = 2


class ShardWriter:
    """One output file. Raises OutputError where the disk refuses."""

    def __init__(self, path: Path, header: bytes, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._unsynced_bytes = 0
        self._partial = partial(path)
        try:
            self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._file, size_bytes)
        except OSError as error:
            raise output_error(path, error) from None
        self.write(memoryview(header), 0)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` (bytes) at absolute `offset`."""
        written = 0
        while written < len(data):
            try:
                written += os.pwrite(self._file, data[written:], offset + written)
            except OSError as error:
                raise output_error(self.path, error) from None
        self._unsynced_bytes += len(data)  # threads may lose an addition to each other; it is only a hint
        if self._unsynced_bytes >= WRITE_BEHIND_BYTES and _sync_file_range is not None:
            self._unsynced_bytes = 0
            everything = ctypes.c_int64(0)
            _sync_file_range(self._file, everything, everything, _SYNC_FILE_RANGE_WRITE)

    def finish(self) -> str:
        """Sync, hash what lies on disk, give the file its name. Returns the SHA-256 as hex."""
        try:
            os.fsync(self._file)
            digest = hash_open_file(self._file)
            self._close()
            os.replace(self._partial, self.path)
        except OSError as error:
            raise output_error(self.path, error) from None
        return digest

    def abandon(self) -> None:
        """Remove the partial file, also after a `finish` that failed."""
        self._close()
        self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1  # the number may be another file's from here on
            os.close(file)


def output_error(path: Path, error: OSError | ValueError) -> OutputError:
    """An OSError of writing as ours, with what to do."""
    hints: dict[int, str | Said] = {
        errno.ENOSPC: "free some space and run the same command again: it resumes",
        errno.EDQUOT: "raise the quota and run the same command again: it resumes",
        errno.EFBIG: said("the file system or ulimit -f does not allow files this large; use {max_shard_bytes}"),
    }
    return OutputError(
        f"{path}: cannot be written: {reason(error)}", hint=hints.get(getattr(error, "errno", None) or 0)
    )


def copy_file(source: Path, target: Path, fault: type[HalfbyteError]) -> tuple[int, str]:
    """Copy a regular file whole or not at all, its folder made. Returns its size and SHA-256 as hex.

    Raises `fault` if it cannot be read, OutputError if it cannot be written.
    """
    digest, size, file = hashlib.sha256(), 0, open_regular(source, fault)
    temporary = partial(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as written:
            while piece := _piece(file, source, fault):
                digest.update(piece)
                size += len(piece)
                written.write(piece)
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise output_error(target, error) from None
    finally:
        os.close(file)
    return size, digest.hexdigest()


def _piece(file: int, path: Path, fault: type[HalfbyteError]) -> bytes:
    try:
        return os.read(file, HASH_CHUNK_BYTES)
    except OSError as error:
        raise fault(f"{path}: cannot be read: {reason(error)}") from None


def hash_open_file(file: int, check_stop: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of an open file, in constant memory. check_stop is called between pieces and may raise."""
    digest, buffer, position = hashlib.sha256(), bytearray(HASH_CHUNK_BYTES), 0
    view = memoryview(buffer)
    while count := os.preadv(file, [buffer], position):
        check_stop()
        digest.update(view[:count])
        position += count
    return digest.hexdigest()


def hash_file(path: Path, check_stop: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file, as `hash_open_file`. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return hash_open_file(file, check_stop)
    finally:
        os.close(file)


def partial(path: Path, ending: str = ".partial") -> Path:
    """Where a file is built: beside it, its name with `ending`, shortened where the file system takes no longer one."""
    name = os.fsencode(path.name)
    if len(name) + len(ending) > LONGEST_NAME_BYTES:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = os.fsencode(os.fsdecode(name[: LONGEST_NAME_BYTES - len(ending) - 17]) + "-" + digest)
    return path.with_name(os.fsdecode(name) + ending)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file completely or not at all; into a device or a pipe (`/dev/stdout`), as it comes.

    Raises OutputError.
    """
    if _is_stream(path):
        try:
            with open(path, "wb") as stream:
                stream.write(content)
        except OSError as error:
            raise output_error(path, error) from None
        return
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder, wanted the name of a file")
    temporary = partial(path)
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # read-only, or never made
                os.unlink(temporary)
            raise
    except (OSError, ValueError) as error:
        raise output_error(path, error) from None


def _is_stream(path: Path) -> bool:
    """Whether writing there is no making of a file: what lies there must not be replaced by one."""
    if str(path).startswith(("/dev/", "/proc/self/fd/")):
        return os.path.exists(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
