"""The ledger on SQLite: one writer thread, which commits whatever has queued up as one transaction."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

from halfbyte.errors import said
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.script import Row, Script
from halfbyte.serve.ledger.tables import TABLES, VERSION

T = TypeVar("T")
Durability = Literal["process", "full"]
FILE = "ledger.sqlite"
BUSY_MS = 2000
MOST_IN_A_GROUP = 200
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises over a damaged file: where it would quote the file's own text, not even its own error."""


class SqliteLedger:
    """durability: `process` survives a killed process (synchronous NORMAL), `full` a power cut too."""

    def __init__(self, folder: Path, durability: Durability = "process") -> None:
        self.file = folder / FILE
        self._durability = durability
        self._work: queue.SimpleQueue[tuple[Script[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._connection = _connect(self.file, durability)
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def create(cls, folder: Path) -> None:
        """Make the tables in a new folder. Raises LedgerError."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = _connect(folder / FILE, "full", create=True)
            with connection:
                for statement in TABLES:
                    connection.execute(statement)
                connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
            connection.close()
        except (OSError, *_DAMAGE) as error:
            raise LedgerError(f"{folder}: the ledger cannot be made: {error}") from None

    def submit(self, script: Script[T]) -> "Future[T]":
        """Run a script in the next transaction. Fails with LedgerError."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # whoever stops waiting for it takes nothing back
        self._work.put((script, done))
        return done

    def run(self, script: Script[T]) -> T:
        return self.submit(script).result()

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()
        self._connection.close()

    def _write(self) -> None:
        while True:
            group = self._next_group()
            if group is None:
                return
            for done, settle in self._commit(group):
                settle(done)

    def _next_group(self) -> list[tuple[Script[Any], Future[Any]]] | None:
        """Whatever waits, at least one; None at the end."""
        first = self._work.get()
        if first is None:
            return None
        group = [first]
        while len(group) < MOST_IN_A_GROUP:
            try:
                item = self._work.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._work.put(None)
                break
            group.append(item)
        return group

    def _commit(
        self, group: list[tuple[Script[Any], Future[Any]]]
    ) -> Iterable[tuple[Future[Any], Callable[[Future[Any]], None]]]:
        """Results of a group, handed out only once they are on the disk."""
        results: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for script, done in group:
                self._connection.execute("SAVEPOINT one")
                try:
                    value = drive(self._connection, script)
                    self._connection.execute("RELEASE one")
                    results.append((done, value, None))
                except (sqlite3.OperationalError, UnicodeDecodeError):
                    raise
                except Exception as error:
                    self._connection.execute("ROLLBACK TO one")
                    self._connection.execute("RELEASE one")
                    results.append((done, None, error))
            self._connection.execute("COMMIT")
        except _DAMAGE as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            failure = LedgerError(f"{self.file}: {error}")
            return [(done, lambda done: done.set_exception(failure)) for _, done in group]
        return [(done, _settling(value, error)) for done, value, error in results]


def _settling(value: Any, error: BaseException | None) -> Callable[[Future[Any]], None]:
    if error is not None:
        return lambda done: done.set_exception(error)
    return lambda done: done.set_result(value)


def drive(connection: sqlite3.Connection, script: Script[T]) -> T:
    """Run one script, statement by statement."""
    rows: list[Row] = []
    try:
        statement, parameters = next(script)
        while True:
            rows = connection.execute(statement.replace("{lock}", ""), parameters).fetchall()
            statement, parameters = script.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _connect(file: Path, durability: Durability, create: bool = False) -> sqlite3.Connection:
    """Open and check. Raises LedgerError for a ledger that is missing, emptied or damaged."""
    if not create and not file.is_file():
        raise LedgerError(
            f"{file}: there is no ledger",
            hint=said("tenants add NAME {state} DIR makes one; restore it if it was lost"),
        )
    try:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        if not create:
            _check(connection, file)
    except _DAMAGE as error:
        raise LedgerError(f"{file}: is no sound ledger: {error}", hint="restore it from a copy") from None
    return connection


def _check(connection: sqlite3.Connection, file: Path) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != ("ok",):
        raise LedgerError(f"{file}: is damaged: {verdict[0]}", hint="restore it from a copy")
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"meta", "tenants", "keys", "requests", "used", "seconds"} <= names:
        raise LedgerError(f"{file}: lacks tables of a ledger", hint="restore it from a copy")
    version = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    if version != (str(VERSION),):
        raise LedgerError(f"{file}: is of version {version and version[0]}, wanted {VERSION}")
