"""`halfbyte` in processes of its own, without paying for inspect-ai's import (seconds) each time.

One server a test process imports everything and forks a child for each command; the child is what gets `kill -9`.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

SERVER = """
import gc, importlib, json, os, sys
import halfbyte.cli.main as cli
import halfbyte.cli.evaluate, halfbyte.cli.gate, halfbyte.cli.verdict, halfbyte.cli.verdicts
import halfbyte.evaluate.evaluation, halfbyte.evaluate.published, halfbyte.evaluate.running.task
import inspect_ai, inspect_ai.log, inspect_ai.model._providers.openai_compatible, jsonschema, openai, scipy.stats
for name in ("model._providers.anthropic", "agent._acp.server"):  # what a run loads besides: most of its time
    try:
        importlib.import_module(f"inspect_ai.{name}")
    except ImportError:
        pass
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, target in ((0, "/dev/null"), (1, job["stdout"]), (2, job["stderr"])):
            file = os.open(target, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(job["env"])
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        sys.argv = ["halfbyte", *job["arguments"]]
        cli.main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _server() -> tuple[IO[str], IO[str]]:
    """What it hears, what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.kill)
    assert process.stdout.readline() == "ready\n", "the server did not start"
    return process.stdin, process.stdout


class Running:
    """A command that was started; one at a time."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        """env: in place of the environment of the tests."""
        self._hears, self._says = _server()
        self._arguments = list(map(str, arguments))
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._folder.name, name) for name in ("stdout", "stderr"))
        job = {
            "arguments": self._arguments,
            "stdout": str(self._out),
            "stderr": str(self._err),
            "env": dict(os.environ if env is None else env),
        }
        self._hears.write(json.dumps(job) + "\n")
        self._hears.flush()
        self.pid = int(self._says.readline())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> subprocess.CompletedProcess[str]:
        code = int(self._says.readline())
        said = subprocess.CompletedProcess(self._arguments, code, self._out.read_text(), self._err.read_text())
        self._folder.cleanup()
        return said


def halfbyte(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A whole command."""
    return Running(*arguments, env=env).wait()
