"""Real doors: the command in a process of its own, asked over real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MODEL = "m"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def halfbyte(*words: str, code: int = 0, **environment: str) -> str:
    """Run a command to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "halfbyte", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def add_tenant(state: Path | str, name: str, *options: str) -> str:
    """Its key."""
    return str(json.loads(halfbyte("tenants", "add", name, "--state", str(state), *options, "--json"))["key"])


def show(state: Path | str, name: str) -> dict[str, Any]:
    return dict(json.loads(halfbyte("tenants", "show", name, "--state", str(state), "--json")))


def usage(state: Path | str, *options: str) -> dict[str, Any]:
    return dict(json.loads(halfbyte("usage", "--state", str(state), "--format", "json", *options)))


class RunningDoor:
    def __init__(self, process: "subprocess.Popen[str]", url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def door(target: str, *options: str, log: Path, ready_s: float = 20, **environment: str) -> Iterator[RunningDoor]:
    port = free_port()
    words = [sys.executable, "-m", "halfbyte", "serve", target, "--port", str(port), *options]
    with log.open("a") as sink:
        process = subprocess.Popen(words, stdout=sink, stderr=sink, text=True, env=os.environ | environment)
    running = RunningDoor(process, f"http://127.0.0.1:{port}", log)
    try:
        until = time.monotonic() + ready_s
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            try:
                if httpx.get(f"{running.url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    assert "Traceback" not in log.read_text(), log.read_text()
