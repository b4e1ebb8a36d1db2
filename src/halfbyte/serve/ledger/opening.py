"""A ledger by its address: a folder for SQLite, a postgresql:// URL, or the user's own state folder."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from halfbyte.errors import UnsupportedError, said
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.script import Script
from halfbyte.serve.ledger.sqlite import FILE, Durability, SqliteLedger

T = TypeVar("T")
POSTGRES = ("postgresql://", "postgres://")


class Ledger(Protocol):
    """What a door needs of a ledger. Every method raises LedgerError."""

    async def run(self, script: Script[T]) -> T: ...
    async def close(self) -> None: ...

    def enter(self, door: str) -> None:
        """This door lives from now on."""
        ...

    def dead(self, doors: list[str], beats: dict[str, float], now: float) -> list[str]:
        """Which of the doors that left requests open are no longer alive. beats: when each was last heard of."""
        ...


class FolderLedger:
    """SQLite in a folder. A door lives as long as its process holds a lock there, which the kernel lets go."""

    def __init__(self, folder: Path, durability: Durability = "process") -> None:
        self._folder = folder
        self._sqlite = SqliteLedger(folder, durability)
        self._own: dict[str, int] = {}
        self._opened = _identity(self._sqlite.file)

    async def run(self, script: Script[T]) -> T:
        if _identity(self._sqlite.file) != self._opened:
            raise LedgerError(f"{self._sqlite.file}: was removed or replaced while it was open")
        return await asyncio.wrap_future(self._sqlite.submit(script))

    async def close(self) -> None:
        self._sqlite.close()
        for door, descriptor in self._own.items():
            self._lock(door).unlink(missing_ok=True)
            os.close(descriptor)

    def enter(self, door: str) -> None:
        try:
            self._lock(door).parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._lock(door), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self._folder}: cannot be written: {error.strerror}") from None
        self._own[door] = descriptor

    def dead(self, doors: list[str], beats: dict[str, float], now: float) -> list[str]:
        return [door for door in doors if door not in self._own and self._is_free(door)]

    def _is_free(self, door: str) -> bool:
        try:
            descriptor = os.open(self._lock(door), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise LedgerError(f"{self._folder}: cannot be read: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            self._lock(door).unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def _lock(self, door: str) -> Path:
        return self._folder / "doors" / f"{door}.lock"


def _identity(file: Path) -> tuple[int, int] | None:
    """By which a file is known while it is open; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def user_folder() -> Path:
    """`$HALFBYTE_STATE`, else `$XDG_STATE_HOME/halfbyte`, else `~/.local/state/halfbyte`."""
    if chosen := os.environ.get("HALFBYTE_STATE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "halfbyte"


async def open_ledger(state: str | None, *, create: bool = False, durability: Durability = "process") -> Ledger:
    """The ledger at `state`; the user's own, made on first use, where none is named.

    create: make one where there is none yet; a ledger that is there is never touched. Raises LedgerError.
    """
    if state is not None and state.startswith(POSTGRES):
        return await _open_postgres(state, create)
    folder = user_folder() if state is None else Path(state)
    if (create or state is None) and not (folder / FILE).exists():
        SqliteLedger.create(folder)
    return FolderLedger(folder, durability)


async def _open_postgres(url: str, create: bool) -> Ledger:
    try:
        from halfbyte.serve.ledger.postgres import PostgresLedger
    except ImportError:
        hint = "pip install 'halfbyte[gateway]'"
        raise UnsupportedError(said("a ledger on PostgreSQL needs sqlalchemy and asyncpg"), hint=hint) from None
    ledger = PostgresLedger(url)
    try:
        if create:
            await ledger.create()
        await ledger.check()
    except LedgerError:
        await ledger.close()
        raise
    return ledger


def with_ledger(state: str | None, work: Callable[[Ledger], Awaitable[T]], *, create: bool = False) -> T:
    """Do some work with a ledger, outside asyncio."""

    async def run() -> T:
        ledger = await open_ledger(state, create=create)
        try:
            return await work(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())
