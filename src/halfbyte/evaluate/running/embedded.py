"""A checkpoint folder or GGUF asked here: llama.cpp in a child process for as long as its arm is asked.

An engine that dies is started again at the same address, so that a running request is retried like one of any server.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import DataError, HalfbyteError, UnsupportedError
from halfbyte.evaluate.running.targets import Target
from halfbyte.process import cores
from halfbyte.progress import Progress

SLOTS = 8
CONTEXT_TOKENS = 8192
GGUF = ".gguf"


@dataclass(frozen=True)
class Engine:
    """How an embedded engine is started. context: tokens of one sequence. gpu_layers: -1 for as many as fit.

    yes: make large GGUF files without asking.
    """

    context: int = CONTEXT_TOKENS
    gpu_layers: int = -1
    yes: bool = False


def gguf_of(path: Path, engine: Engine, progress: Progress) -> Path:
    """The file that llama.cpp loads: the GGUF itself, or the cached one of a checkpoint. Raises HalfbyteError."""
    if path.suffix == GGUF:
        return path
    from halfbyte.chat.gguf_cache import cached_gguf

    return cached_gguf(path, progress, lambda _: engine.yes)


def identity_of(path: Path) -> str:
    """What a path held when it was asked, so that a resumed run asks the same. Raises DataError, CheckpointError."""
    if path.suffix == GGUF:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        return f"{found.st_size}-{found.st_mtime_ns}"
    from halfbyte.chat.gguf_cache import fingerprint
    from halfbyte.checkpoint.source import Checkpoint

    with Checkpoint.open(path) as checkpoint:
        return fingerprint(checkpoint)[:16]


@contextmanager
def embedded(path: Path, engine: Engine, progress: Progress) -> Iterator[Target]:
    """Serve it until the block ends. Raises HalfbyteError for what cannot be loaded."""
    file = gguf_of(path, engine, progress)
    running = _Running(file, path.resolve().name.removesuffix(GGUF), engine, progress)
    try:
        yield Target(running.start(), running.name, "")
    finally:
        running.stop()


class _Running:
    """The supervisor of an engine, in a thread with a loop of its own."""

    def __init__(self, file: Path, name: str, engine: Engine, progress: Progress) -> None:
        self.name, self._file, self._engine, self._progress = name, file, engine, progress
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),), daemon=True)
        self._url = ""
        self._error: HalfbyteError | None = None

    def start(self) -> str:
        """Its URL, with /v1, as soon as it answers."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return f"{self._url}/v1"

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self._loop.close()

    async def _live(self) -> None:
        try:
            from aiohttp import ClientSession

            from halfbyte.serve.door.upstream import Upstream
            from halfbyte.serve.engine.launched import free_port
            from halfbyte.serve.engine.llamacpp import LlamaCppEngine
            from halfbyte.serve.engine.supervisor import Supervisor
        except ImportError:
            self._error = UnsupportedError(
                "serving a checkpoint needs llama.cpp", hint="pip install 'halfbyte[evaluate,local,serve]'"
            )
            self._ready.set()
            return
        engine = LlamaCppEngine(
            str(self._file),
            self.name,
            SLOTS,
            self._engine.context,
            self._engine.gpu_layers,
            port=free_port(),
            threads=max(1, cores() - 1),  # one is left for asking and checking
        )
        async with ClientSession() as client:
            upstream = Upstream(None, client)
            supervisor = Supervisor(engine, upstream, lambda: self._progress.note(f"{self.name}: started again"))
            try:
                await supervisor.start(self._progress.note)
                self._url = upstream.url or ""
            except HalfbyteError as error:
                self._error = error
                await supervisor.stop()
                self._ready.set()
                return
            watching = asyncio.ensure_future(supervisor.watch())
            self._ready.set()
            await self._end.wait()
            await supervisor.stop()
            watching.cancel()
