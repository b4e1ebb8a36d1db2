"""llama.cpp in a child process on a free port of this machine."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import CheckpointError
from halfbyte.process import fewer_than_all
from halfbyte.serve.engine.supervisor import gone

SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class LlamaCppEngine:
    """What the child loads. context: tokens of each of `slots` sequences. port: 0 for a free one at each start.

    threads: 0 for as many as the engine likes, which looks at the machine alone: where fewer are ours, as many as are.
    """

    file: str
    name: str
    slots: int
    context: int
    gpu_layers: int
    grace_s: float = 5.0
    embedded: bool = True
    routes: bool = False
    port: int = 0
    threads: int = 0

    async def spawn(self, note: Callable[[str], None]) -> tuple[asyncio.subprocess.Process, str]:
        """Raises CheckpointError for what it cannot load."""
        process = await asyncio.create_subprocess_exec(
            *command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {"file": self.file, "name": self.name, "slots": self.slots, "context": self.context}
        asked |= {"gpu_layers": self.gpu_layers, "port": self.port}
        asked["threads"] = self.threads or fewer_than_all() or 0
        with contextlib.suppress(OSError):  # it died at once; its answer is missing then
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            await process.stdin.drain()
        said = asyncio.ensure_future(process.stdout.readline())
        began = time.monotonic()
        while not (await asyncio.wait((said,), timeout=SAY_EVERY_S))[0]:
            note(f"loading {self.name}: {time.monotonic() - began:.0f} s")
        found = json.loads(said.result() or b"{}")
        if "url" not in found:
            process.stdin.close()
            status = await gone(process)
            reason = found.get("error") or f"the engine ended with status {status}"
            raise CheckpointError(f"{Path(self.file).name}: llama.cpp cannot load it: {reason}")
        return process, found["url"]


def command() -> list[str]:
    return [sys.executable, "-m", "halfbyte.serve.engine.child"]
