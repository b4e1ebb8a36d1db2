"""Progress of long work, in bytes: a small interface for library code, the terminal and plain versions behind it."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from halfbyte.text import line


def tell(message: str, whole: bool = False) -> None:
    """A line on stderr, if anybody can be told. whole: the message is made of lines and safe to show."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(message if whole else line(message), file=sys.stderr, flush=True)


class Progress(Protocol):
    """What long-running functions report to. Methods may be called from any thread."""

    def start(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None: ...
    def advance(self, done_bytes: int) -> None: ...
    def note(self, message: str) -> None: ...


class Silent:
    """Reports nothing."""

    def start(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        pass

    def advance(self, done_bytes: int) -> None:
        pass

    def note(self, message: str) -> None:
        pass


class NotesOf(Silent):
    """Passes on the notes alone: of work that runs inside other work, which shows how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def note(self, message: str) -> None:
        self._progress.note(message)


class Plain:
    """One line on stderr every few seconds, for logs and pipes."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every_seconds = every_seconds

    def start(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        self._phase, self._total, self._first, self._done = phase, total_bytes, done_bytes, done_bytes
        self._began = self._shown = time.monotonic()

    def advance(self, done_bytes: int) -> None:
        self._done += done_bytes
        now = time.monotonic()
        if now - self._shown >= self._every_seconds:
            self._shown = now
            rate = (self._done - self._first) / (now - self._began)
            left = (self._total - self._done) / rate if rate else float("inf")
            self.note(
                f"{self._phase}: {self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB, {rate / 1e9:.2f} GB/s, "
                f"{left:.0f} s left"
            )

    def note(self, message: str) -> None:
        tell(message)


class Bar:
    """A live bar on stderr: phase, bytes, rate, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = RichProgress(*columns, console=Console(stderr=True))
        self._task: TaskID | None = None

    def start(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        self._task = self._bars.add_task(phase, total=total_bytes, completed=done_bytes)

    def advance(self, done_bytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, done_bytes)

    def note(self, message: str) -> None:
        self._bars.console.print(line(message), markup=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
