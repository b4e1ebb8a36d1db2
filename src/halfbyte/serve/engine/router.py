"""smg (Shepherd Model Gateway) between the door and several engines: it routes by prefix, we do tenants and money."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from halfbyte.serve.engine.launched import free_port
from halfbyte.serve.engine.supervisor import EngineError, ends_with_us

ROUTER = "smg"
FLAGS = ("--policy", "cache_aware", "--host", "127.0.0.1", "--log-level", "warn")
EVERY = ("--worker-startup-check-interval", "1")
"""Seconds: its own 30 are long for an engine that is there already."""


@dataclass(frozen=True)
class RouterEngine:
    """name: of the served model. workers: base URLs of the engines. grace_s: the door has drained before."""

    name: str
    workers: tuple[str, ...]
    grace_s: float = 10.0
    embedded: bool = False
    routes: bool = True

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
                preexec_fn=ends_with_us,
            )
        except OSError as error:
            raise EngineError(f"{program}: cannot be started: {error.strerror}") from None
        return process, f"http://127.0.0.1:{port}"
