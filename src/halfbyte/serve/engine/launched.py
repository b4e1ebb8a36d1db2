"""vLLM or SGLang, started with the command that was made for checkpoint and machine."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from halfbyte.serve.engine.command import Command
from halfbyte.serve.engine.supervisor import EngineError, ends_with_us


@dataclass(frozen=True)
class LaunchedEngine:
    """grace_s: what running answers get after SIGTERM, the door's own time over."""

    command: Command
    grace_s: float = 30.0
    embedded: bool = False
    routes: bool = False

    @property
    def name(self) -> str:
        return self.command.served

    async def spawn(self, note: Callable[[str], None]) -> tuple[asyncio.subprocess.Process, str]:
        """Raises EngineError where the engine is not installed."""
        port = free_port()
        words = [*self.command.words, *self.command.engine.listen_flags(port)]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                env=os.environ | self.command.env,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=ends_with_us,
            )
        except OSError as error:
            hint = f"install {self.command.engine.title} here, or start it elsewhere and give its URL as upstream"
            raise EngineError(f"{words[0]}: cannot be started: {error.strerror}", hint=hint) from None
        return process, f"http://127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
