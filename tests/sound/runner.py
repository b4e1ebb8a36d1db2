"""Commands in processes of their own without paying for the imports each time: a server imports all, then forks.

Use: `with Runner() as runner: ended = runner.run(["inspect", "x"], cwd=folder)`.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SERVER = """
import ctypes, gc, json, os, resource, signal, sys, time
from importlib import import_module
import halfbyte.disk
from halfbyte.cli import main as cli
for name in cli.SUMMARIES:
    try:
        import_module(f"halfbyte.cli.{name}")
    except ImportError:
        pass
for name in json.loads(sys.stdin.readline()):
    import_module(name)
import ml_dtypes, numpy
from halfbyte.formats.nvfp4 import codec
from halfbyte.gate import kernels
for kind in (ml_dtypes.bfloat16, numpy.float16, numpy.float32):  # compiled code is loaded once, not in every child
    encoded, _ = codec.encode(numpy.ones((16, 16), kind))
codec.decode(encoded)
kernels.count_bytes(encoded.scales.reshape(-1), numpy.zeros(256, numpy.int64))
kernels.count_codes(
    encoded.codes.reshape(-1), encoded.scales.reshape(-1), numpy.zeros(256, numpy.int64), numpy.zeros(2, numpy.int64)
)
kernels.count_non_finite(numpy.zeros(16, numpy.uint16))
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(os.fsencode(job["cwd"].encode("utf-8", "surrogateescape")))
        for number, target in ((0, "/dev/null"), (1, job["stdout"]), (2, job["stderr"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            file = os.open(target, flags, 0o644)
            os.dup2(file, number)
            os.close(file)
        os.environ.update(job["env"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if job["user"]:
            os.setgroups([])
            os.setgid(job["user"])
            os.setuid(job["user"])
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        halfbyte.disk.SILENCE_SECONDS = 2
        sys.argv = ["halfbyte", *(os.fsdecode(bytes.fromhex(one)) for one in job["arguments"])]
        cli.main()
    began = time.monotonic()
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if job["stop"] and time.monotonic() - began > job["stop"]:
            os.kill(child, signal.SIGINT)
            job["stop"] = 0
        if time.monotonic() - began > job["seconds"]:
            os.killpg(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            status = None
            break
        time.sleep(0.002)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    print(json.dumps([code, time.monotonic() - began, used.ru_maxrss * 1024]), flush=True)
"""

LIGHT: tuple[str, ...] = ("halfbyte.quantize.pipeline", "halfbyte.quantize.verify", "halfbyte.gate.judge")
HEAVY = (
    "halfbyte.improve.shard_by_shard",
    "halfbyte.export",
    "halfbyte.calibrate.calibration",
    "halfbyte.compare.comparison",
    "halfbyte.compare.lockstep",
    "halfbyte.search.best_recipe",
    "halfbyte.search.damage",
    "halfbyte.chat.gguf_cache",
    "transformers",
)


@dataclass(frozen=True)
class Ended:
    """code: None where it was ended for taking too long. peak: resident bytes, those of the server included."""

    arguments: list[str]
    code: int | None
    seconds: float
    peak: int
    stdout: str
    stderr: str


class Runner:
    def __init__(self, scratch: Path, modules: tuple[str, ...] = LIGHT) -> None:
        self._scratch, self._modules = scratch, modules

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            text=True,
        )
        self._send([*self._modules])
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=20)

    def run(
        self,
        arguments: list[str],
        cwd: Path,
        *,
        seconds: float = 20,
        stdout: str | None = None,
        env: dict[str, str] | None = None,
        user: int = 0,
        stop: float = 0,
    ) -> Ended:
        """arguments: with surrogates for bytes that are no UTF-8. user: number of the one to run as, 0 for our own.
        stop: seconds after which Ctrl-C is pressed, 0 for never."""
        out, err = stdout or str(self._scratch / "stdout"), str(self._scratch / "stderr")
        job = {"cwd": str(cwd), "stdout": out, "stderr": err, "seconds": seconds, "env": env or {}, "user": user}
        job |= {"stop": stop}
        self._send(job | {"arguments": [os.fsencode(one).hex() for one in arguments]})
        assert self._server.stdout is not None
        code, took, peak = json.loads(self._server.stdout.readline())
        said = "" if stdout else Path(out).read_text("utf-8", "replace")
        return Ended(arguments, code, took, peak, said, Path(err).read_text("utf-8", "replace"))

    def _send(self, document: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(document) + "\n")
        self._server.stdin.flush()
