"""How long a server is waited for: as a whole, while it sends next to nothing, and when it asks for time itself.

A read timeout alone is no bound: one byte a second never meets it. So bytes are counted, and while there are none to
count, as a server may send its headers one by one too, a thread watches the clock and closes the connections.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from halfbyte.errors import CheckpointError, UsageError, said

SLOW_SECONDS = 60.0
LEAST_RATE = 1000
"""Bytes a second, over SLOW_SECONDS, below which a server is given up."""

TICK_SECONDS = 0.2


class Patience:
    """Of one run with one server. seconds: for all of it. hang_up: close the connections, from another thread."""

    def __init__(self, where: str, seconds: float, hang_up: Callable[[], None]) -> None:
        """Raises UsageError for a time that cannot be."""
        if not 0 < seconds < math.inf:
            raise UsageError(said("{timeout} {value}: wanted a number of seconds above 0", value=f"{seconds:g}"))
        self._where, self._seconds, self._hang_up = where, seconds, hang_up
        self._ends = time.monotonic() + seconds
        self._waiting: dict[int, float] = {}
        self._problem: str | None = None
        self._over = threading.Event()
        self._watching = False
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        return self._ends - time.monotonic()

    def check(self) -> None:
        """Raises CheckpointError once it is at its end."""
        if self._problem is None and self.left <= 0:
            self._problem = self._too_long()
        if self._problem is not None:
            raise CheckpointError(
                f"{self._where}: {self._problem}", hint=said("try again later, or allow more with {timeout} SECONDS")
            )

    @contextmanager
    def request(self) -> Iterator[None]:
        """While an answer is awaited: its headers, and (see `pace`) its body."""
        self.check()
        key = threading.get_ident()
        with self._lock:
            self._waiting[key] = time.monotonic()
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(key, None)

    def pace(self) -> "Pace":
        """To be told of every piece of a body."""
        with self._lock:
            self._waiting[threading.get_ident()] = time.monotonic()
        return Pace(self)

    def still_waiting(self) -> None:
        """A body goes on; the clock that watches for its next piece begins anew."""
        with self._lock:
            self._waiting[threading.get_ident()] = time.monotonic()

    def too_slow(self, sent: int, seconds: float) -> None:
        """Raises CheckpointError."""
        self._problem = self._problem or f"the server sends {sent} bytes in {seconds:.0f} s, and is given up"
        self.check()

    def pause(self, asked: str | None, otherwise: float, sleep: Callable[[float], None]) -> None:
        """Wait before the next attempt. asked: the server's Retry-After.

        Raises CheckpointError if the server asks for more than is left.
        """
        seconds = _seconds(asked)
        if seconds is not None and seconds > self.left:
            shown = f"{seconds:.0f} s" if seconds < math.inf else "longer than can be said"
            self._problem = self._problem or f"the server asks to wait {shown}, {max(self.left, 0):.0f} s are left"
            self.check()
        sleep(min(otherwise if seconds is None else seconds, max(self.left, 0)))
        self.check()

    def close(self) -> None:
        self._over.set()

    def _too_long(self) -> str:
        return f"not read within {self._seconds:g} s"

    def _watch(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            with self._lock:
                oldest = min(self._waiting.values(), default=None)
            if self.left <= 0:
                self._problem = self._problem or self._too_long()
            elif oldest is not None and time.monotonic() - oldest > SLOW_SECONDS:
                self._problem = self._problem or f"the server sends nothing to read for {SLOW_SECONDS:.0f} s"
            if self._problem is not None:
                self._hang_up()
                return


class Pace:
    """Of one body: bytes over the last SLOW_SECONDS."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began, self._sent = time.monotonic(), 0

    def sent(self, count: int) -> None:
        """Raises CheckpointError if it is too slow, or the time is up."""
        self._sent += count
        seconds = time.monotonic() - self._began
        if seconds >= SLOW_SECONDS:
            if self._sent < LEAST_RATE * seconds:
                self._patience.too_slow(self._sent, seconds)
            self._began, self._sent = time.monotonic(), 0
        self._patience.check()
        self._patience.still_waiting()


def _seconds(asked: str | None) -> float | None:
    """What a Retry-After says, in seconds or as a date; None for what says nothing."""
    if asked is None:
        return None
    text = asked.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= 10 else math.inf
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
