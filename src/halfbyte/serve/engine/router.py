"""smg (Shepherd Model Gateway) between the door and several engines: it routes by prefix, we do tenants and money."""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from halfbyte.serve.engine.launched import free_port
from halfbyte.serve.engine.supervisor import ASK_EVERY_S, SAY_EVERY_S, EngineError

ROUTER = "smg"
FLAGS = ("--policy", "cache_aware", "--host", "127.0.0.1", "--log-level", "warn")
EVERY = ("--worker-startup-check-interval", "1")
"""Seconds: its own 30 are long for an engine that is there already."""
ASK_S = 5.0


@dataclass(frozen=True)
class RouterEngine:
    """name: of the served model. workers: base URLs of the engines. grace_s: the door has drained before."""

    name: str
    workers: tuple[str, ...]
    grace_s: float = 10.0
    embedded: bool = False

    async def spawn(self, note: Callable[[str], None]) -> tuple[asyncio.subprocess.Process, str]:
        """Raises EngineError where it is not installed."""
        port, metrics = free_port(), free_port()
        beside = Path(sys.executable).parent / ROUTER
        program = str(beside) if beside.is_file() else shutil.which(ROUTER)
        if program is None:
            raise EngineError(f"{ROUTER} is not installed", hint="pip install 'halfbyte[gateway]'")
        words = [program, "launch", "--worker-urls", *self.workers, *FLAGS, *EVERY]
        words += ["--port", str(port), "--prometheus-port", str(metrics), "--shutdown-grace-period-secs", "5"]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"{program}: cannot be started: {error.strerror}") from None
        url = f"http://127.0.0.1:{port}"
        await self._registered(process, url, note)
        return process, url

    async def _registered(self, process: asyncio.subprocess.Process, url: str, note: Callable[[str], None]) -> None:
        """It answers before it knows any engine: wait until it knows the model. Raises EngineError if it ends."""
        began = shown = time.monotonic()
        async with httpx.AsyncClient(timeout=ASK_S) as client:
            while process.returncode is None:
                try:
                    found = (await client.get(f"{url}/v1/models")).json()
                    if any(one.get("id") == self.name for one in found["data"]):
                        return
                except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    pass
                if time.monotonic() - shown > SAY_EVERY_S:
                    shown = time.monotonic()
                    note(f"{ROUTER} knows no engine that serves {self.name} yet: {shown - began:.0f} s")
                await asyncio.sleep(ASK_EVERY_S)
        raise EngineError(f"{ROUTER} ended with status {process.returncode} before it answered")
