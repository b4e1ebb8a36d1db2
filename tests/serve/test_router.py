"""smg between the door and two engines."""

import asyncio
import subprocess
import sys
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


def test_two_engines_behind_one_router(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "t")
    events = [chunk({"content": "a"}), chunk({}, finish_reason="stop"), usage_chunk(5, 3), "data: [DONE]\n\n"]
    with fake_upstream() as one, fake_upstream() as two:
        urls = f"{one.url},{two.url}/v1"
        options = ("--upstream", urls, "--router", "smg", "--state", str(state))
        with door("m", *options, log=tmp_path / "log", ready_s=60) as running, running.client(key) as client:
            for _ in range(8):
                answer = client.post("/v1/chat/completions", json=ASK | {"stream": True, "fake": {"events": events}})
                assert answer.status_code == 200, answer.text
            assert running.stop() == 0
        assert len(one.seen) + len(two.seen) == 8
    assert usage(state)["totals"]["output_tokens"] == 24
    left = subprocess.run(["pgrep", "-f", f"smg launch --worker-urls {one.url}"], capture_output=True).stdout
    assert left == b""
