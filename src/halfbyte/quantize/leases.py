"""Leases on pieces of work, by files in a folder that several machines share: who does what, and who is dead.

Every worker has a heartbeat file whose time it renews; a lease file names the worker that took a piece and counts how
often it was taken (its fence). A worker whose heartbeat is older than the limit is dead, and whoever notices takes its
piece over under the next fence, by an exclusive create: of two that try, one wins. A result is put down under an
exclusive create too, so that a worker that was only thought dead cannot put down a second one.

Ages are differences of times that the file system itself gave out, so clocks of machines need not agree.
"""

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.disk import read_regular
from halfbyte.errors import OutputError
from halfbyte.text import json_of

BEATS = 4
"""Heartbeats within the limit: three may be late."""
LARGEST_RECORD_BYTES = 1 << 30


class Leases:
    """The pieces of one job as one worker sees them. with Leases(folder, "0-of-2", 60) as leases: ..."""

    def __init__(self, folder: Path, worker: str, limit_seconds: float) -> None:
        self.folder, self.worker, self.limit_seconds = folder, worker, limit_seconds
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="halfbyte-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._touch()
        except OSError as error:
            raise output_error(self.folder, error) from None
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beats.join()
        with suppress(OSError):  # gone from now on: others need not wait for the limit
            os.utime(self._heartbeat(self.worker), (0, 0))

    def take(self, piece: str) -> int | None:
        """The fence under which this worker may do a piece; None if it is done, or somebody alive is at it."""
        if self.record(piece) is not None:
            return None
        fence, holder = self._holder(piece)
        if holder is not None and holder != self.worker and self.alive(holder):
            return None
        content = json.dumps({"worker": self.worker}).encode()
        taken = self.folder / f"{piece}.lease-{fence + 1}"
        return fence + 1 if _created(taken, content) else None

    def done(self, piece: str, record: dict[str, Any]) -> bool:
        """Put down what became of a piece. False if somebody else has done so before."""
        return _created(self.folder / f"{piece}.done", json.dumps(record).encode())

    def record(self, piece: str) -> dict[str, Any] | None:
        """What was put down. Raises OutputError for a damaged record."""
        path = self.folder / f"{piece}.done"
        if not path.exists():
            return None
        found = _object(path)
        if found is None:
            raise OutputError(f"{path}: is damaged", hint=f"remove {path}; the piece is done again")
        return found

    def undone(self, piece: str) -> None:
        """Forget what was put down, for its file is not what it says."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder / f"{piece}.done")

    def workers(self) -> list[str]:
        """All that ever began, this one among them."""
        return sorted(path.name.removesuffix(".alive") for path in self.folder.glob("*.alive"))

    def alive(self, worker: str) -> bool:
        """Whether its heartbeat is young enough."""
        try:
            then = os.stat(self._heartbeat(worker)).st_mtime
        except FileNotFoundError:
            return False
        return self._now() - then < self.limit_seconds

    def _holder(self, piece: str) -> tuple[int, str | None]:
        """The last fence of a piece and whose it is; 0 and None for one that was never taken."""
        fences = [int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{piece}.lease-*")]
        if not fences:
            return 0, None
        found = _object(self.folder / f"{piece}.lease-{max(fences)}")
        return max(fences), None if found is None else str(found.get("worker"))

    def _now(self) -> float:
        self._touch()
        return os.stat(self._heartbeat(self.worker)).st_mtime

    def _touch(self) -> None:
        self._heartbeat(self.worker).touch()

    def _beat(self) -> None:
        while not self._stop.wait(self.limit_seconds / BEATS):
            with suppress(OSError):
                self._touch()

    def _heartbeat(self, worker: str) -> Path:
        return self.folder / f"{worker}.alive"


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None for anything else in it."""
    try:
        found = json_of(read_regular(path, LARGEST_RECORD_BYTES))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _created(path: Path, content: bytes) -> bool:
    """A file that was not there, whole from its first moment. False if it is there already."""
    # named so that nobody who lists the leases takes it for one
    own = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
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
