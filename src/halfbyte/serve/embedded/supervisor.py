"""Starts the embedded engine, waits until it answers, and starts it again where it dies."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from halfbyte.errors import CheckpointError, HalfbyteError
from halfbyte.serve.door.upstream import BROKEN, Upstream

LOG = logging.getLogger("halfbyte.serve")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STEADY_S = 60.0
"""An engine that ran so long may start again at once."""
ASK_EVERY_S = 0.05
SAY_EVERY_S = 5.0
END_S = 5.0


@dataclass(frozen=True)
class Engine:
    """What the child loads. context: tokens of each of `slots` sequences."""

    file: str
    name: str
    slots: int
    context: int
    gpu_layers: int


class Supervisor:
    """One engine behind one upstream, whose url changes with each start."""

    def __init__(self, engine: Engine, upstream: Upstream, restarted: Callable[[], None]) -> None:
        self._engine, self._upstream, self._restarted = engine, upstream, restarted
        self._process: asyncio.subprocess.Process | None = None
        self.context: int | None = None

    async def start(self, note: Callable[[str], None]) -> None:
        """Until it answers. Raises CheckpointError for what it cannot load."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "halfbyte.serve.embedded.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(asdict(self._engine)).encode() + b"\n")
            await stdin.drain()
        except OSError:
            pass  # it died at once; its answer is missing then
        said = asyncio.ensure_future(stdout.readline())
        began = shown = time.monotonic()
        while True:
            done, _ = await asyncio.wait((said,), timeout=SAY_EVERY_S)
            if done:
                break
            note(f"loading {self._engine.name}: {time.monotonic() - began:.0f} s")
        found = json.loads(said.result() or b"{}")
        if "url" not in found:
            reason = found.get("error") or f"the engine ended with status {await self._process.wait()}"
            raise CheckpointError(f"{Path(self._engine.file).name}: llama.cpp cannot load it: {reason}")
        self._upstream.url = found["url"].removesuffix("/")
        while not self._upstream.healthy:
            await self._upstream.check(self._engine.name)
            if self._process.returncode is not None:
                raise CheckpointError(f"{Path(self._engine.file).name}: llama.cpp ended while loading it")
            if time.monotonic() - shown > SAY_EVERY_S:
                shown = time.monotonic()
                note(f"loading {self._engine.name}: {shown - began:.0f} s")
            await asyncio.sleep(ASK_EVERY_S)
        self.context = await self._context()

    async def _context(self) -> int | None:
        """Tokens of one sequence, as the engine has settled on."""
        try:
            _, found = await self._upstream.ask("/v1/models")
            context = found["data"][0]["meta"]["n_ctx"]
        except (*BROKEN, KeyError, IndexError, TypeError):
            return None
        return context if isinstance(context, int) and context > 0 else None

    async def watch(self) -> None:
        """Start it again whenever it dies, later and later where it does not live long."""
        wait_s = FIRST_WAIT_S
        while self._process is not None:
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
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()
