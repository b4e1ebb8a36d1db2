"""`quantize --part` and `--finish`: several processes on one folder, the bytes of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize, verify
from halfbyte.cli.main import app
from halfbyte.quantize.leases import Leases
from halfbyte.quantize.place import FolderPlace

SIZE = ("--max-shard-size", "20KB")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("source") / "in", "GLM-4.5-Air")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def said(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["quantize", *map(str, words)])
    assert done.exit_code == code, done.stderr
    return done


def part(source: Path, out: Path, place: str) -> Any:
    return json.loads(said(source, out, *SIZE, "--part", place, "--json").stdout)


def command(source: Path, out: Path, place: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "halfbyte", "quantize", str(source), str(out), *SIZE, "--part", place, *more]


@pytest.mark.parametrize("options", [{}, {"rounding": "sweep", "recipe": "nvfp4-mlp"}])
def test_joined_parts_are_one_run(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    quantize(source, tmp_path / "one", max_shard_bytes=20_000, **options)
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    for place in ("2/3", "0/3", "1/3"):
        said(source, tmp_path / "parts", *SIZE, *more, "--part", place)
    said(source, tmp_path / "parts", "--finish")  # the options are those of the parts
    assert files(tmp_path / "parts") == files(tmp_path / "one")
    assert not (tmp_path / "parts/.halfbyte").exists()
    assert verify(source, tmp_path / "parts").ok


def test_too_early_names_what_is_missing_and_changes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = part(source, tmp_path / "out", "0/2")
    assert found["shards"] > 0
    assert found["left"] > 0
    before = sorted(tmp_path.rglob("*.safetensors"))
    done = said(source, tmp_path / "out", "--finish", code=1)
    assert f"{found['left']} of {found['shards'] + found['left']} shard(s) are missing: model-00002-of-" in done.stderr
    assert sorted(tmp_path.rglob("*.safetensors")) == before
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert part(source, tmp_path / "out", "/2")["left"] == 0
    said(source, tmp_path / "out", "--finish")


def test_a_killed_part_is_taken_over(source: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "one", max_shard_bytes=20_000)
    out = tmp_path / "out"
    dead = subprocess.Popen(command(source, out, "0/2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob(".halfbyte/parts/model-*.lease-1")):
        assert dead.poll() is None
        time.sleep(0.001)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    alive = subprocess.run(
        [*command(source, out, "1/2", "--lease-seconds", "1"), "--json"], capture_output=True, text=True
    )
    assert alive.returncode == 0, alive.stderr
    assert json.loads(alive.stdout)["left"] == 0
    said(source, out, "--finish")
    assert files(out) == files(tmp_path / "one")


@pytest.mark.slow
def test_processes_side_by_side_killed_at_random(source: Path, tmp_path: Path) -> None:
    import random

    quantize(source, tmp_path / "one", max_shard_bytes=20_000)
    chance = random.Random(5)
    for number in range(10):
        out = tmp_path / str(number)
        running = [subprocess.Popen(command(source, out, f"{i}/2", "--lease-seconds", "1")) for i in range(2)]
        time.sleep(chance.uniform(0.2, 1.5))
        running[number % 2].kill()
        assert running[1 - number % 2].wait(60) == 0
        running[number % 2].wait()
        if not list(out.glob(f".halfbyte/parts/{number % 2}-of-2.begun")):  # it was killed before it began
            subprocess.run(command(source, out, f"{number % 2}/2"), check=True)
        said(source, out, "--finish")
        assert files(out) == files(tmp_path / "one")


def test_a_shard_that_is_not_what_was_written_is_done_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part(source, out, "0/1")
    path = next(out.glob(".halfbyte/model-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "is not what its part wrote" in said(source, out, "--finish", code=1).stderr
    assert part(source, out, "0/1")["shards"] == 1
    said(source, out, "--finish")
    assert verify(source, out).ok


def test_what_does_not_go_together(source: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data.txt"
    data.write_text("text")
    for place in ("2/2", "-1/2", "a/b", "1", "/2", "0/0", ""):
        assert "--part" in said(source, out, "--part", place, code=2).stderr
    assert "--part" in said(source, out, "--part", "0/2", "--improve", code=2).stderr
    gptq = ("--rounding", "gptq", "--calibrate", data)
    assert "halfbyte calibrate" in said(source, out, "--part", "0/2", *gptq, code=2).stderr
    assert "holds no parts" in said(source, out, "--finish", code=1).stderr
    assert not out.exists()
    part(source, out, "0/2")
    assert "parts of another job" in said(source, out, *SIZE, "--part", "1/2", "--rounding", "sweep", code=1).stderr
    assert "--finish" in said(source, out, *SIZE, code=1).stderr
    said(source, out, *SIZE, "--overwrite")
    assert verify(source, out).ok


def test_one_process_to_a_part(source: Path, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "out/.halfbyte/part-0-of-2"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "at work already" in said(source, tmp_path / "out", *SIZE, "--part", "0/2", code=1).stderr


def test_of_two_that_take_a_piece_one_wins(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path)
    with Leases(place, "a", 60) as one, Leases(place, "b", 60) as other:
        assert one.take("piece") == 1
        assert other.take("piece") is None
        os.utime(tmp_path / ".halfbyte/parts/a.alive", (0, 0))  # taken for dead
        assert other.take("piece") == 2
        assert other.done("piece", {"by": "b"})
        assert not one.done("piece", {"by": "a"})
        assert one.record("piece") == {"by": "b"}
        assert one.take("piece") is None
