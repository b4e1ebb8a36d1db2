"""Leases on pieces of work, by small files where several machines meet (`place`): who does what, and who is dead.

Every worker has a heartbeat file whose time it renews; a lease file names the worker that took a piece and counts how
often it was taken (its fence). A worker whose heartbeat is older than the limit is dead, and whoever notices takes its
piece over under the next fence, by an exclusive create: of two that try, one wins. A result is put down under an
exclusive create too, so that a worker that was only thought dead cannot put down a second one.

Ages are differences of times that the place itself gave out, so clocks of machines need not agree.
"""

import json
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from halfbyte.errors import HalfbyteError, OutputError
from halfbyte.quantize.place import Place
from halfbyte.text import json_of

PARTS = "parts"
"""Where leases lie in a place."""
BEATS = 4
"""Heartbeats within the limit: three may be late."""


class Leases:
    """The pieces of one job as one worker sees them. with Leases(place, "0-of-2", 60) as leases: ..."""

    def __init__(self, place: Place, worker: str, limit_seconds: float) -> None:
        self._place, self.worker, self.limit_seconds = place, worker, limit_seconds
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="halfbyte-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._place.create(_name(f"{self.worker}.begun"), b"")
        self._place.beat(self._heartbeat(self.worker))
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beats.join()
        with suppress(HalfbyteError, OSError):  # gone from now on: others need not wait for the limit
            self._place.remove(self._heartbeat(self.worker))

    def take(self, piece: str) -> int | None:
        """The fence under which this worker may do a piece; None if it is done, or somebody alive is at it."""
        if self.record(piece) is not None:
            return None
        fence, holder = self._holder(piece)
        if holder is not None and holder != self.worker and self.alive(holder):
            return None
        content = json.dumps({"worker": self.worker}).encode()
        return fence + 1 if self._place.create(_name(f"{piece}.lease-{fence + 1}"), content) else None

    def done(self, piece: str, record: dict[str, Any]) -> bool:
        """Put down what became of a piece. False if somebody else has done so before."""
        return self._place.create(_name(f"{piece}.done"), json.dumps(record).encode())

    def record(self, piece: str) -> dict[str, Any] | None:
        """What was put down. Raises OutputError for a damaged record."""
        content = self._place.read(_name(f"{piece}.done"))
        if content is None:
            return None
        found = _object(content)
        if found is None:
            where = f"{self._place.where}/.halfbyte/{_name(piece)}.done"
            raise OutputError(f"{where}: is damaged", hint="remove it; the piece is done again")
        return found

    def undone(self, piece: str) -> None:
        """Forget what was put down, for its file is not what it says."""
        self._place.remove(_name(f"{piece}.done"))

    def all_done(self) -> set[str]:
        """The pieces of which something was put down."""
        return pieces_done(self._place)

    def workers(self) -> list[str]:
        """All that ever began, this one among them."""
        return [
            name.removeprefix(f"{PARTS}/").removesuffix(".begun") for name in self._names() if name.endswith(".begun")
        ]

    def alive(self, worker: str) -> bool:
        """Whether its heartbeat is young enough."""
        then = self._place.beaten(self._heartbeat(worker))
        return then is not None and self._place.beat(self._heartbeat(self.worker)) - then < self.limit_seconds

    def _holder(self, piece: str) -> tuple[int, str | None]:
        """The last fence of a piece and whose it is; 0 and None for one that was never taken."""
        fences = [int(name.rpartition("-")[2]) for name in self._place.names(_name(f"{piece}.lease-"))]
        if not fences:
            return 0, None
        found = _object(self._place.read(_name(f"{piece}.lease-{max(fences)}")) or b"")
        return max(fences), None if found is None else str(found.get("worker"))

    def _names(self) -> list[str]:
        return self._place.names(_name(""))

    def _beat(self) -> None:
        while not self._stop.wait(self.limit_seconds / BEATS):
            with suppress(HalfbyteError, OSError):
                self._place.beat(self._heartbeat(self.worker))

    def _heartbeat(self, worker: str) -> str:
        return _name(f"{worker}.alive")


def pieces_done(place: Place) -> set[str]:
    """The pieces of which somebody has put down something."""
    names = (name.removeprefix(f"{PARTS}/") for name in place.names(_name("")))
    return {name.removesuffix(".done") for name in names if name.endswith(".done")}


def _name(name: str) -> str:
    return f"{PARTS}/{name}"


def _object(content: bytes) -> dict[str, Any] | None:
    """The JSON object of a file; None for anything else in it."""
    try:
        found = json_of(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
