"""smg between the door and two engines."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halfbyte.serve.engine.router import RouterEngine
from halfbyte.serve.engine.supervisor import EngineError

from .doors import add_tenant, door, halfbyte, usage
from .fakes import chunk, fake_upstream, usage_chunk

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


def test_what_is_no_router() -> None:
    assert "smg" in halfbyte("serve", "m", "--upstream", "http://127.0.0.1:9", "--router", "nginx", code=2)
    assert "--upstream" in halfbyte("serve", "m", "--router", "smg", code=2)


def test_a_router_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="not installed") as missing:
        asyncio.run(RouterEngine("m", ("http://127.0.0.1:9",)).spawn(print))
    assert "halfbyte[gateway]" in str(missing.value.hint)


def children(process: int) -> list[Path]:
    """Of a process, as folders of /proc: a program that renames itself is found too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found.append(stat.parent)
    return found


def alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_end(processes: list[Path]) -> None:
    assert processes
    until = time.monotonic() + 20
    while left := [one for one in processes if alive(one)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_two_engines_behind_one_router(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "t")
    events = [chunk({"content": "a"}), chunk({}, finish_reason="stop"), usage_chunk(5, 3), "data: [DONE]\n\n"]
    with fake_upstream() as one, fake_upstream() as two:
        options = ("--upstream", f"{one.url},{two.url}/v1", "--router", "smg", "--state", str(state))
        with door("m", *options, log=tmp_path / "log", ready_s=60) as running, running.client(key) as client:
            for _ in range(8):
                answer = client.post("/v1/chat/completions", json=ASK | {"stream": True, "fake": {"events": events}})
                assert answer.status_code == 200, answer.text
            started = children(running.process.pid)
            assert running.stop() == 0
            all_end(started)
        assert len(one.seen) + len(two.seen) == 8
        with door("m", *options, log=tmp_path / "log", ready_s=60) as running:
            started = children(running.process.pid)
            running.kill()
            all_end(started)
    assert usage(state)["totals"]["output_tokens"] == 24


@pytest.mark.slow
def test_a_door_that_ends_while_the_router_finds_nobody(tmp_path: Path) -> None:
    state = tmp_path / "state"
    add_tenant(state, "t")
    with fake_upstream() as fake:
        words = [sys.executable, "-m", "halfbyte", "serve", "another", "--upstream", fake.url, "--router", "smg"]
        process = subprocess.Popen([*words, "--state", str(state), "--port", "0"], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not children(process.pid):
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1)
        started = children(process.pid)
        process.terminate()
        process.wait(20)
        all_end(started)
