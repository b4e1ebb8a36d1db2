"""The ledger on PostgreSQL, for several front doors: the same scripts, each in a transaction of its own."""

from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.script import Row, Script
from halfbyte.serve.ledger.tables import TABLES, VERSION

T = TypeVar("T")
SILENT_S = 5.0
"""A door that has not been heard of for so long is dead, and others settle what it left."""


class PostgresLedger:
    """url: postgresql://user:password@host/database. Reservations of one tenant are serialised by its row's lock."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: AsyncEngine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=10, max_overflow=20, pool_pre_ping=True
        )

    async def create(self) -> None:
        """Make the tables where they are not there yet. Raises LedgerError."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(7265018)"))  # two that make them at once
                for statement in TABLES:
                    await connection.execute(text(statement))
                version = {"version": str(VERSION)}
                await connection.execute(
                    text("INSERT INTO meta VALUES ('version', :version) ON CONFLICT DO NOTHING"), version
                )
        except (OSError, SQLAlchemyError) as error:
            raise self._failure(error) from None

    async def check(self) -> None:
        """Raises LedgerError where there is no ledger, or one of another version."""
        try:
            async with self._engine.connect() as connection:
                found = await connection.execute(text("SELECT value FROM meta WHERE name = 'version'"))
                version = found.scalar()
        except (OSError, SQLAlchemyError) as error:
            raise self._failure(error) from None
        if version != str(VERSION):
            raise LedgerError(f"the ledger is of version {version}, wanted {VERSION}")

    async def run(self, script: Script[T]) -> T:
        """Run a script in one transaction. Raises LedgerError."""
        try:
            async with self._engine.begin() as connection:
                return await drive(connection, script)
        except (TimeoutError, OSError, SQLAlchemyError) as error:
            raise self._failure(error) from None

    def enter(self, door: str) -> None:
        """Its beats tell that it lives."""

    def dead(self, doors: list[str], beats: dict[str, float], now: float) -> list[str]:
        return [door for door in doors if beats.get(door, 0.0) < now - SILENT_S]

    async def close(self) -> None:
        await self._engine.dispose()

    def _failure(self, error: BaseException) -> LedgerError:
        where = self._url.rpartition("@")[2]
        first = str(getattr(error, "orig", None) or error).splitlines()[:1]
        return LedgerError(f"{where}: {first[0][:200] if first else type(error).__name__}")


async def drive(connection: AsyncConnection, script: Script[T]) -> T:
    """Run one script, statement by statement."""
    try:
        statement, parameters = next(script)
        while True:
            result = await connection.execute(text(statement.replace("{lock}", "FOR UPDATE")), parameters)
            rows: list[Row] = [tuple(row) for row in result] if result.returns_rows else []
            statement, parameters = script.send(rows)
    except StopIteration as end:
        done: T = end.value
        return done
