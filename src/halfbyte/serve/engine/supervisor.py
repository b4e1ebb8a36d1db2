"""Starts an engine, waits until it answers, and starts it again where it dies."""

import asyncio
import ctypes
import logging
import signal
import time
from collections.abc import Callable
from typing import Protocol

from halfbyte.errors import HalfbyteError
from halfbyte.serve.door.upstream import BROKEN, Upstream

LOG = logging.getLogger("halfbyte.serve")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STEADY_S = 60.0
"""An engine that ran so long may start again at once."""
ASK_EVERY_S = 0.05
SAY_EVERY_S = 5.0


PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def ends_with_us() -> None:
    """In a new process: be told to end when the door dies, however it dies (Linux' prctl(2))."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class EngineError(HalfbyteError):
    """An engine that does not come up."""

    kind = "engine"


async def gone(process: asyncio.subprocess.Process) -> int:
    """Its status, once it and its pipe have ended: asyncio lets go of a pipe only by reading its end, while it runs."""
    status = await process.wait()
    if process.stdout is not None:
        await process.stdout.read()
    return status


class Engine(Protocol):
    """An engine that the door runs itself. name: of the model. grace_s: to end by itself when told to. routes: whether
    it only leads to engines, and answers before it knows one."""

    @property
    def name(self) -> str: ...
    @property
    def grace_s(self) -> float: ...
    @property
    def embedded(self) -> bool: ...
    @property
    def routes(self) -> bool: ...

    async def spawn(self, note: Callable[[str], None]) -> tuple[asyncio.subprocess.Process, str]:
        """(process, URL) of a fresh one, which need not answer yet. Raises HalfbyteError."""
        ...


class Supervisor:
    """One engine behind one upstream, whose url changes with each start."""

    def __init__(self, engine: Engine, upstream: Upstream, restarted: Callable[[], None]) -> None:
        self._engine, self._upstream, self._restarted = engine, upstream, restarted
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.context: int | None = None

    async def start(self, note: Callable[[str], None]) -> None:
        """Until it answers. Raises HalfbyteError for an engine that cannot."""
        began = shown = time.monotonic()
        self._process, url = await self._engine.spawn(note)
        self._upstream.url = url.removesuffix("/")
        while not (self._upstream.healthy and await self._knows_model()):
            await self._upstream.check(self._engine.name)
            if self._process.returncode is not None:
                raise EngineError(f"the engine ended with status {self._process.returncode} before it answered")
            if time.monotonic() - shown > SAY_EVERY_S:
                shown = time.monotonic()
                note(f"loading {self._engine.name}: {shown - began:.0f} s")
            await asyncio.sleep(ASK_EVERY_S)
        if self._engine.embedded:
            self.context = await self._context()

    async def _knows_model(self) -> bool:
        """Whether a router has found an engine that serves the model."""
        if not self._engine.routes:
            return True
        try:
            _, found = await self._upstream.ask("/v1/models")
            return any(one.get("id") == self._engine.name for one in found["data"])
        except (*BROKEN, KeyError, TypeError, AttributeError):
            return False

    async def _context(self) -> int | None:
        """Tokens of one sequence, as llama.cpp has settled on."""
        try:
            _, found = await self._upstream.ask("/v1/models")
            context = found["data"][0]["meta"]["n_ctx"]
        except (*BROKEN, KeyError, IndexError, TypeError):
            return None
        return context if isinstance(context, int) and context > 0 else None

    async def watch(self) -> None:
        """Start it again whenever it dies, later and later where it does not live long."""
        wait_s = FIRST_WAIT_S
        while not self._stopping and self._process is not None:
            began = time.monotonic()
            status = await self._process.wait()
            self._upstream.url, self._upstream.healthy = None, False
            if time.monotonic() - began > STEADY_S:
                wait_s = FIRST_WAIT_S
            LOG.error("the engine ended with status %s; starting it again in %.1f s", status, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            self._restarted()
            try:
                await self.start(LOG.warning)
            except HalfbyteError as error:
                LOG.error("%s", error)

    async def stop(self) -> None:
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        else:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._engine.grace_s)
        except TimeoutError:
            process.kill()
        await gone(process)
