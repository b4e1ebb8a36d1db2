"""An output in an object store: shards are made here, one or two at a time, and put there as they are finished.

Everything waits under `DST/.halfbyte/` until all of it is there; then shards are copied to their names by the store
itself, config.json comes last, and what waited is removed: no reader ever sees half a checkpoint. What is done is noted
beside it, so that a run goes on after its machine is gone. A file that is made once only is a conditional put
(If-None-Match), which the store is asked to prove first. Ages are differences of the store's own times.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.index import INDEX_NAME, SHARD_SUFFIX
from halfbyte.checkpoint.object_store import open_store, told
from halfbyte.checkpoint.resume import locked
from halfbyte.checkpoint.source import CONFIG_NAME, Checkpoint
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.errors import OutputError, said
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.staging import BESIDE, check_free

IN_FLIGHT = 2
"""Shards that lie here at once: one is put there while the next is made."""
CHUNK_BYTES = 16 << 20
COPIES = 8
ALIASES = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az"}
LARGEST_COPY_BYTES = 5 << 30
"""That S3 copies in one request."""


class BucketPlace:
    """See `place.Place`."""

    def __init__(self, target: str) -> None:
        """Raises UnsupportedError without obstore, CheckpointError for an address that is none."""
        self._obstore, self._store = open_store(target)
        self.where = target.rstrip("/")

    @cached_property
    def work(self) -> Path:
        """Made when something is to be put there."""
        return _own_folder(self.where)

    @cached_property
    def worker(self) -> str:
        """Kept here, so that the same machine goes on with what it had begun, and no other takes it for its own."""
        path = self.work / "worker"
        if not path.exists():
            write_whole(path, f".{secrets.token_hex(6)}".encode())
        return path.read_text("ascii")

    def check(self, source: Checkpoint, overwrite: bool) -> None:
        theirs, ours = _one_spelling(source.where), _one_spelling(self.where)
        if theirs.startswith(ours) or ours.startswith(theirs):
            raise OutputError(
                f"{self.where}: lies in, around or on the source {source.where}", hint="choose another folder of it"
            )
        held = self._list("")
        unfinished = any(name.startswith(f"{STAGING}/") for name in held)
        if held and not overwrite and (CONFIG_NAME in held or not unfinished):
            raise OutputError(
                f"{self.where}: is not empty",
                hint=said("choose another folder, or replace the checkpoint with {overwrite}"),
            )

    @contextmanager
    def opened(self, job: Job) -> Iterator[None]:
        largest = max(shard.bytes for shard in job.shards)
        if largest > LARGEST_COPY_BYTES:
            raise OutputError(
                f"{self.where}: a shard of {largest} bytes is more than a store copies at once, {LARGEST_COPY_BYTES}",
                hint=said("give a smaller {max_shard_bytes}"),
            )
        check_free(self.work, IN_FLIGHT * largest)
        self._prove_conditions()
        yield

    @contextmanager
    def alone(self, name: str, what: str) -> Iterator[Path]:
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        lock = locked(
            self.work / f"{name}.lock",
            OutputError(f"{what} is at work already", hint="give each process a part of its own"),
        )
        try:
            yield folder
            shutil.rmtree(folder, ignore_errors=True)  # after an error it stays, for the run that goes on
        finally:
            os.close(lock)

    def create(self, name: str, content: bytes) -> bool:
        try:
            self._obstore.put(self._store, self._at(name), content, mode="create")
        except Exception as error:
            # a race of two is told as a conflict by some stores, as a failed condition by others
            if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
                return False
            raise self._fault(name, error) from None
        return True

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._obstore.get(self._store, self._at(name)).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._fault(name, error) from None

    def names(self, prefix: str) -> list[str]:
        folder = self._at(prefix).rpartition("/")[0]  # a store lists by whole folders
        return sorted(
            name.removeprefix(f"{STAGING}/") for name in self._list(folder) if name.startswith(self._at(prefix))
        )

    def remove(self, name: str) -> None:
        self._delete([self._at(name)])

    def beat(self, name: str) -> float:
        self._put(self._at(name), b"")
        found = self.beaten(name)
        if found is None:
            raise OutputError(f"{self.where}: {self._at(name)} is gone as soon as it is written")
        return found

    def beaten(self, name: str) -> float | None:
        meta = self._head(self._at(name))
        return None if meta is None else float(meta["last_modified"].timestamp())

    def put(self, path: Path, name: str) -> Mapping[str, Any]:
        tag = self._put(self._at(name), path)
        path.unlink(missing_ok=True)
        return {"e_tag": tag}

    def check_shard(self, name: str, size: int, record: Mapping[str, Any]) -> bool:
        """By size and ETag: the store checked the bytes when it took them."""
        waiting, there = self._head(self._at(name)), None
        if waiting is None:
            there = self._head(name)
            noted = self.read(f"moved/{name}")
            tag = None if noted is None else noted.decode("utf-8", "replace")
        else:
            tag = record.get("e_tag")
        found = waiting or there
        return found is not None and int(found["size"]) == size and str(found["e_tag"]) == tag

    def publish(self, shards: list[str], side: list[str], names: list[str]) -> None:
        for name in side:
            os.replace(self.work / BESIDE / name, _made(self.work / name))
        self._publish(self.work, shards, [*side, *names])

    def _publish(self, folder: Path, shards: list[str], names: list[str]) -> None:
        """Repeatable: what a run before this one has moved is left as it is."""
        waiting = {name.removeprefix(f"{STAGING}/") for name in self._list(f"{STAGING}/")}
        there = [name for name in self._list("") if not name.startswith(f"{STAGING}/")]
        if any(name in waiting for name in shards):  # a checkpoint that is replaced stops looking like one first
            self._delete([name for name in there if name in (CONFIG_NAME, INDEX_NAME)])
            self._delete([name for name in there if name.endswith(SHARD_SUFFIX) and name not in shards])
        with ThreadPoolExecutor(COPIES, "halfbyte-copy") as pool:
            list(pool.map(self._move, [name for name in shards if name in waiting]))
        for name in names:
            self._put(name, folder / name)

    def forget(self) -> None:
        """Another job that was begun there."""
        self._delete(self._list(f"{STAGING}/"))

    def clear(self) -> None:
        self.forget()
        shutil.rmtree(self.work, ignore_errors=True)

    def put_folder(self, folder: Path) -> None:
        """A finished checkpoint that lies here: its shards to where they wait, then all of it into place."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        shards = [name for name in names if name.endswith(SHARD_SUFFIX)]
        last = [name for name in (INDEX_NAME, CONFIG_NAME) if name in names]
        for name in shards:
            size, noted = (folder / name).stat().st_size, self.read(f"taken/{name}")
            tag = {} if noted is None else {"e_tag": noted.decode("utf-8", "replace")}
            if not self.check_shard(name, size, tag):
                self.create(f"taken/{name}", self._put(self._at(name), folder / name).encode())
        self._publish(folder, shards, [name for name in names if name not in shards + last] + last)

    def _move(self, name: str) -> None:
        """The record of its new ETag comes between copy and removal, so that one of the two can always be checked."""
        try:
            self._obstore.copy(self._store, self._at(name), name)
        except Exception as error:
            raise self._fault(name, error) from None
        meta = self._head(name)
        self._put(self._at(f"moved/{name}"), str(None if meta is None else meta["e_tag"]).encode())
        self._delete([self._at(name)])

    def _prove_conditions(self) -> None:
        """Raises OutputError for a store that makes a file twice: two parts would do one shard, and mix it."""
        probe = f"probe-{secrets.token_hex(8)}"
        try:
            if not self.create(probe, b"1") or self.create(probe, b"2"):
                raise OutputError(
                    f"{self.where}: this store does not heed If-None-Match, by which parts keep apart",
                    hint="write to a folder, and copy it there",
                )
        finally:
            self.remove(probe)

    def _at(self, name: str) -> str:
        return f"{STAGING}/{name}"

    def _put(self, key: str, content: bytes | Path) -> str:
        try:
            found = self._obstore.put(self._store, key, content, chunk_size=CHUNK_BYTES)
        except Exception as error:
            raise self._fault(key, error) from None
        return str(found["e_tag"])

    def _head(self, key: str) -> Any:
        try:
            return self._obstore.head(self._store, key)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._fault(key, error) from None

    def _list(self, prefix: str) -> list[str]:
        try:
            chunks = self._obstore.list(self._store, prefix=prefix or None)
            return [meta["path"] for chunk in chunks for meta in chunk]
        except Exception as error:
            raise self._fault(prefix, error) from None

    def _delete(self, keys: list[str]) -> None:
        try:
            if keys:
                self._obstore.delete(self._store, keys)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._fault(keys[0], error) from None

    def _fault(self, key: str, error: Exception) -> OutputError:
        return OutputError(
            f"{self.where}/{key}: {told(error)}",
            hint="check address, credentials and the right to write; the same command goes on",
        )


def _one_spelling(address: str) -> str:
    """The same for all schemes of one kind of store."""
    scheme, _, rest = address.partition("://")
    return f"{ALIASES.get(scheme.lower(), scheme.lower())}://{rest.rstrip('/')}/"


def _made(path: Path) -> Path:
    """The same path, its folder there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _own_folder(where: str) -> Path:
    """The same for the same output, so that a run goes on where it was; nobody else's, wherever temporary files are."""
    name = f"halfbyte-{os.getuid()}-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise output_error(folder, error) from None
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise OutputError(f"{folder}: is not ours alone", hint="set TMPDIR to a folder of your own")
    return folder
