"""`serve` of a checkpoint folder: llama.cpp in a child process behind the door."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.doors import RunningDoor, add_tenant, door, show

pytest.importorskip("xllamacpp")
TINY = str(Path(__file__).parents[2] / "examples" / "tiny-glm")
MESSAGES = [{"role": "user", "content": "Compute 3+4."}]
ASK = {"model": "tiny-glm", "messages": MESSAGES, "max_tokens": 30}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    return add_tenant(folder / "state", "a", "--tokens-per-day", "100000")


@pytest.fixture(scope="module")
def running(folder: Path, key: str) -> Iterator[RunningDoor]:
    options = ("--state", str(folder / "state"), "--max-running-requests", "4", "--context-length", "2048")
    with door(TINY, *options, log=folder / "log", ready_s=60, HALFBYTE_CACHE=str(folder / "cache")) as found:
        yield found
        assert found.stop() == 0
        assert children(found.process.pid) == []


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(row[0]) for row in rows if row[1] == str(pid) and "engine.child" in row[2]]


def test_answers_name_the_model_and_no_path(running: RunningDoor, key: str, folder: Path) -> None:
    client = running.client(key)
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny-glm"
    texts = [client.get("/v1/models").text]
    answer = client.post(CHAT, json=ASK)
    texts.append(answer.text)
    figures = answer.json()["usage"]
    assert figures["prompt_tokens"] == 13
    assert 0 <= figures["completion_tokens_details"]["reasoning_tokens"] <= figures["completion_tokens"]
    streamed = client.post(CHAT, json=ASK | {"stream": True, "stream_options": {"include_usage": True}})
    texts.append(streamed.text)
    last = json.loads(streamed.text.strip().split("\n\n")[-2][6:])
    assert last["usage"]["prompt_tokens"] == 13
    assert "reasoning_tokens" in last["usage"]["completion_tokens_details"]
    for wrong in ({"messages": 5}, {"tools": 3}, {"temperature": "x"}, {"messages": [{"role": "user"}]}):
        refused = client.post(CHAT, json=ASK | wrong)
        assert refused.status_code == 400
        texts.append(refused.text)
    long = client.post(CHAT, json=ASK | {"messages": [{"role": "user", "content": "hi " * 3000}]})
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    for text in [*texts, long.text]:
        assert str(folder) not in text
        assert ".gguf" not in text
        assert "json.exception" not in text


def test_the_prompt_is_reserved_exactly(running: RunningDoor, key: str) -> None:
    """llama.cpp's own template and tokenizer say how long the prompt is, before it is let in."""
    client = running.client(key)
    before = client.get("/v1/limits").json()["used"]["day"]["tokens"]
    answer = client.post(CHAT, json=ASK)
    left = int(answer.headers["x-ratelimit-remaining-tokens"])
    assert left == 100_000 - before - 13 - 30


def test_several_choices_and_prompts_are_all_counted(running: RunningDoor, key: str) -> None:
    client = running.client(key)
    answer = client.post(CHAT, json=ASK | {"n": 2, "temperature": 1})
    assert len(answer.json()["choices"]) == 2
    two = client.post("/v1/completions", json={"prompt": ["Compute 3", "hello"], "max_tokens": 6})
    usage = two.json()["usage"]
    assert usage["completion_tokens"] >= 10
    (row,) = [
        r for r in client.get("/v1/usage?by=request").json()["rows"] if r["request"] == two.headers["x-request-id"]
    ]
    assert (row["prompt_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_anthropic_and_responses(running: RunningDoor, key: str) -> None:
    with httpx.Client(base_url=running.url, headers={"x-api-key": key}, timeout=60) as client:
        answer = client.post("/v1/messages", json=ASK)
        assert answer.json()["usage"]["output_tokens"] > 0
        streamed = client.post("/v1/messages", json=ASK | {"stream": True})
        assert "event: message_stop" in streamed.text
        responses = client.post("/v1/responses", json={"input": "Compute 3+4.", "max_output_tokens": 6, "stream": True})
        assert "event: response.completed" in responses.text
        rows = client.get("/v1/usage?by=request").json()["rows"][-3:]
    assert [row["prompt_tokens"] for row in rows] == [13, 13, 13]
    assert all(row["output_tokens"] > 0 for row in rows)


def test_a_client_that_leaves_frees_the_slot(running: RunningDoor, key: str, folder: Path) -> None:
    client = running.client(key)
    with client.stream("POST", CHAT, json=ASK | {"stream": True, "max_tokens": 2000, "ignore_eos": True}) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number == 4:
                break
    until = time.monotonic() + 5
    while show(folder / "state", "a")["reserved"]["requests"]:
        assert time.monotonic() < until
    row = client.get("/v1/usage?by=request").json()["rows"][-1]
    assert row["status"] == "cancelled"
    assert 1 <= row["output_tokens"] < 2000
    assert row["prompt_tokens"] == 13


def test_a_killed_engine_comes_back(running: RunningDoor, key: str) -> None:
    client = running.client(key)
    (engine,) = children(running.process.pid)
    lines: list[str] = []
    body: dict[str, Any] = ASK | {"stream": True, "max_tokens": 1500, "ignore_eos": True}
    with client.stream("POST", CHAT, json=body) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 20:
                os.kill(engine, signal.SIGKILL)
    assert "event: error" in lines
    row = client.get("/v1/usage?by=request").json()["rows"][-1]
    assert (row["status"], row["output_tokens"] > 5) == ("cut", True)
    until = time.monotonic() + 30
    while client.post(CHAT, json=ASK).status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert children(running.process.pid) != [engine]


def test_a_killed_door_takes_its_engine_with_it(folder: Path) -> None:
    cache, own = str(folder / "cache"), str(folder / "own")
    began = time.monotonic()
    with door(TINY, log=folder / "log2", ready_s=60, HALFBYTE_CACHE=cache, HALFBYTE_STATE=own) as found:
        with found.client() as client:
            assert client.post(CHAT, json=ASK).status_code == 200
        assert time.monotonic() - began < 15
        (engine,) = children(found.process.pid)
        found.kill()
    until = time.monotonic() + 5
    while Path(f"/proc/{engine}").exists() and "Z" not in Path(f"/proc/{engine}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < until
        time.sleep(0.05)
