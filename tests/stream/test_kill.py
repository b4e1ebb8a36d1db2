"""`kill -9` of calibrate, compare and search at random moments: the same numbers in the end.

quantize with gptq and --improve are killed in tests/quantize_gptq and tests/quantize_improve.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare.models import pair

from stream.models import checkpoint

SERVER = """
import json, os, sys
from typer.testing import CliRunner
import torch, transformers
torch.set_num_threads(1)
from halfbyte.cli.main import app
import halfbyte.calibrate.calibration, halfbyte.compare.lockstep, halfbyte.search.best_recipe
for line in sys.stdin:
    words = json.loads(line)
    child = os.fork()
    if child == 0:
        done = CliRunner().invoke(app, words[1:])
        with open(words[0], "w") as file:
            file.write(done.stdout)
        os._exit(0 if done.exit_code == 0 else 1)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
KILLS = pytest.mark.parametrize("kills", [1, pytest.param(15, marks=pytest.mark.slow)])


class Server:
    """Runs commands in forked children, which can be killed without paying for the imports again."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, shown: Path, words: list[str], kill_after: float | None = None) -> bool:
        """shown: file for what the command prints. Returns whether it was killed; else it succeeded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(shown), *words]) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = int(self._process.stdout.readline())
        if os.WIFSIGNALED(status):
            return True
        assert os.WEXITSTATUS(status) == 0, shown.read_text()
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, chance = tmp_path_factory.mktemp("data") / "data.jsonl", np.random.default_rng(0)
    path.write_text("\n".join(json.dumps({"input_ids": chance.integers(0, 96, 60).tolist()}) for _ in range(8)))
    return str(path)


def figures(document: Any) -> Any:
    """Without what depends on the machine and the moment."""
    return {key: value for key, value in document.items() if key not in ("seconds", "peak_rss_bytes", "output")}


def killed(server: Server, tmp_path: Path, words: list[str], kills: int, result: Path) -> Any:
    """The command, killed so many times at moments drawn over its length, and run to its end. What it left."""
    shown, chance = tmp_path / "shown", random.Random(kills)
    began = time.monotonic()
    server.run(shown, [word.replace("WORK", str(tmp_path / "whole")) for word in words])
    seconds, wanted = time.monotonic() - began, result.read_text()
    result.unlink()
    mine = [word.replace("WORK", str(tmp_path / "work")) for word in words]
    left = kills
    while left:
        if server.run(shown, mine, chance.uniform(0.05, 0.9) * seconds):
            left -= 1
            if result.exists() and result != shown:  # killed between the file and the end
                assert result.read_text() == wanted
                result.unlink()
        else:  # it was faster, and would be done at once the next time
            result.unlink()
            shutil.rmtree(tmp_path / "work", ignore_errors=True)
            seconds *= 0.7
    server.run(shown, mine)
    return wanted, result.read_text()


@KILLS
def test_calibrate(kills: int, server: Server, data: str, tmp_path: Path) -> None:
    out = tmp_path / "scales.json"
    words = ["calibrate", str(checkpoint()), "--data", data, "-o", str(out), "--work", "WORK"]
    wanted, found = killed(server, tmp_path, words, kills, out)
    assert found == wanted


@KILLS
def test_compare(kills: int, server: Server, data: str, tmp_path: Path) -> None:
    base, candidate = pair(tmp_path / "pair")
    words = ["compare", str(base), str(candidate), "--data", data, "--work", "WORK", "--json"]
    wanted, found = killed(server, tmp_path, words, kills, tmp_path / "shown")
    assert figures(json.loads(found)) == figures(json.loads(wanted))


@KILLS
def test_search(kills: int, server: Server, data: str, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    words = ["search", str(checkpoint()), "--data", data, "--bits", "12", "-o", str(out), "--work", "WORK"]
    wanted, found = killed(server, tmp_path, words, kills, out)
    assert found == wanted
