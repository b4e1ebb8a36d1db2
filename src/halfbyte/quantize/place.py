"""Where the parts of one run meet: small files by which they agree, and finished shards that wait for the others.

`FolderPlace` is a folder that all of them share, `bucket.BucketPlace` a folder of an object store. Either gives two
things that everything else rests on: a file that is made once only, whoever tries, and times that come from one clock.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from halfbyte.checkpoint.names import is_store
from halfbyte.checkpoint.resume import locked
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import hash_file, output_error, write_whole
from halfbyte.disk import read_regular
from halfbyte.errors import OutputError, said
from halfbyte.quantize.destination import check_destination, new_folder
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING, has_journal
from halfbyte.quantize.staging import check_free, publish

LARGEST_RECORD_BYTES = 1 << 30


class Place(Protocol):
    """Names are relative, with slashes. where: the output as the user calls it. work: a folder here, for files that are
    made. worker: what tells this process from another that does the same part; empty where a lock does."""

    where: str

    @property
    def work(self) -> Path: ...
    @property
    def worker(self) -> str: ...

    def check(self, source: Checkpoint, overwrite: bool) -> None:
        """Raises OutputError for a place that cannot take the output, or holds something else."""

    def opened(self, job: Job) -> AbstractContextManager[None]:
        """While work is done there. Raises OutputError for want of room."""

    def alone(self, name: str, what: str) -> AbstractContextManager[Path]:
        """A folder for the part of that name, no second process of it beside. Raises OutputError."""

    def create(self, name: str, content: bytes) -> bool:
        """A file that was not there, whole from its first moment. False if it is there already."""

    def read(self, name: str) -> bytes | None:
        """None if it is not there."""

    def names(self, prefix: str) -> list[str]:
        """Of the files that begin so, in order."""

    def remove(self, name: str) -> None:
        """A file that may be gone already."""

    def beat(self, name: str) -> float:
        """Make or renew a file. Its time, by the place's own clock."""

    def beaten(self, name: str) -> float | None:
        """The time of its last beat; None if there was none."""

    def put(self, path: Path, name: str) -> Mapping[str, Any]:
        """Move a finished file there. What tells it from others of its name and size."""

    def check_shard(self, name: str, size: int, record: Mapping[str, Any]) -> bool:
        """Whether a shard, waiting or published, is what its record says."""

    def publish(self, shards: list[str], side: list[str], names: list[str]) -> None:
        """Shards from where they wait, side files and then `names` from folder `work`, in their order."""

    def clear(self) -> None:
        """All of it is published: remove what the parts agreed by."""


def place_of(dst: str | Path) -> Place:
    """Of a folder, or of an object store's. Raises UnsupportedError without obstore, CheckpointError for an address
    that is none."""
    if is_store(str(dst)):
        from halfbyte.quantize.bucket import BucketPlace

        return BucketPlace(str(dst))
    return FolderPlace(Path(dst))


class FolderPlace:
    """The staging folder of DST, on this machine or shared."""

    worker = ""

    def __init__(self, dst: Path) -> None:
        self.where, self._dst = str(dst), dst

    @property
    def work(self) -> Path:
        return self._dst / STAGING

    def check(self, source: Checkpoint, overwrite: bool) -> None:
        check_destination(source.folder, self._dst, overwrite)
        if has_journal(self._dst):
            raise OutputError(
                f"{self._dst}: holds an unfinished run without parts",
                hint=said("finish it with its own command, or choose another folder"),
            )

    @contextmanager
    def opened(self, job: Job) -> Iterator[None]:
        with new_folder(self._dst):
            check_free(self._dst, job.output_bytes)
            yield

    @contextmanager
    def alone(self, name: str, what: str) -> Iterator[Path]:
        folder = self.work / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = locked(
                folder / "lock", OutputError(f"{what} is at work already", hint="give each process a part of its own")
            )
        except OSError as error:
            raise output_error(folder, error) from None
        try:
            yield folder
        finally:
            os.close(lock)

    def create(self, name: str, content: bytes) -> bool:
        path = self.work / name
        # named so that nobody who lists the folder takes it for one
        own = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(path.parent, error) from None
        write_whole(own, content)
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise output_error(path, error) from None
        finally:
            own.unlink(missing_ok=True)
        return True

    def read(self, name: str) -> bytes | None:
        path = self.work / name
        return read_regular(path, LARGEST_RECORD_BYTES) if path.exists() else None

    def names(self, prefix: str) -> list[str]:
        folder, _, begin = prefix.rpartition("/")
        try:
            found = os.listdir(self.work / folder)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" for name in found if name.startswith(begin) and not name.startswith("."))

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.work / name)

    def beat(self, name: str) -> float:
        path = self.work / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            return path.stat().st_mtime
        except OSError as error:
            raise output_error(path, error) from None

    def beaten(self, name: str) -> float | None:
        try:
            return os.stat(self.work / name).st_mtime
        except FileNotFoundError:
            return None

    def put(self, path: Path, name: str) -> Mapping[str, Any]:
        try:
            os.replace(path, self.work / name)
        except OSError as error:
            raise output_error(path, error) from None
        return {}

    def check_shard(self, name: str, size: int, record: Mapping[str, Any]) -> bool:
        path = next((path for path in (self.work / name, self._dst / name) if path.exists()), None)
        return path is not None and path.stat().st_size == size and hash_file(path) == record.get("sha256")

    def publish(self, shards: list[str], side: list[str], names: list[str]) -> None:
        publish(self.work, self._dst, shards, side, names)

    def clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
