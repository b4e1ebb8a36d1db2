"""`quantize` in processes that can be killed for real, without paying for the imports each time.

A server process imports everything once, does one whole run itself to warm up, and forks a child for every further
one; the child is what gets `kill -9`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SERVER = """
import json, os, sys, traceback
import halfbyte.quantize.rounding.experts
from halfbyte.api import quantize
quantize(**json.loads(sys.stdin.readline()))
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            quantize(**json.loads(line))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Forks:
    """with Forks(src=..., dst=warm_up, rounding="gptq") as forks: forks.run(0.3, src=..., dst=..., rounding="gptq")"""

    def __init__(self, **warm_up: Any) -> None:
        """warm_up: options of the server's own run."""
        self._warm_up = warm_up

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._tell(self._warm_up)
        assert self._answer() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def run(self, kill_after: float | None = None, **options: Any) -> bool:
        """Run `quantize(**options)`; kill it after so many seconds. Returns whether it was; else it has succeeded."""
        self._tell(options)
        child = int(self._answer())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = int(self._answer())
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0, "the run failed, see its traceback"
        return False

    def _tell(self, options: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(options, default=str) + "\n")
        self._server.stdin.flush()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
