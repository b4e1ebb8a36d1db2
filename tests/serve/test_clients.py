"""The official clients over a real socket: streams, tools, parallel calls, cancellation, errors."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from serve.doors import MODEL, RunningDoor, add_tenant, door, usage
from serve.fakes import Fake, chunk, fake_upstream, usage_chunk

MESSAGES: Any = [{"role": "user", "content": "hi"}]
DONE = "data: [DONE]\n\n"


class Place:
    def __init__(self, state: Path, fake: Fake, running: RunningDoor) -> None:
        self.state, self.fake, self.door = state, fake, running
        self.key = add_tenant(state, "client")

    def openai(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.door.url}/v1", api_key=self.key, max_retries=0, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("clients")
    add_tenant(folder / "state", "first")
    options = ("--state", str(folder / "state"))
    with fake_upstream() as fake, door(MODEL, "--upstream", fake.url, *options, log=folder / "log") as running:
        yield Place(folder / "state", fake, running)


def events(*of: str) -> dict[str, Any]:
    return {"fake": {"events": [*of, chunk({}, finish_reason="stop"), usage_chunk(7, 5), DONE]}}


def test_openai_streams_with_usage_and_reasoning(place: Place) -> None:
    body = events(chunk({"reasoning_content": "think"}), chunk({"content": "Hello"}), chunk({"content": " you"}))
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "stream": True, "extra_body": body}
    chunks = list(place.openai().chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello you"
    assert chunks[0].choices[0].delta.model_extra == {"reasoning_content": "think"}
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 5)
    silent = list(place.openai().chat.completions.create(**ask))
    assert all(one.usage is None for one in silent)
    assert [one.id for one in place.openai().models.list()] == [MODEL]


def test_openai_parallel_tool_calls(place: Place) -> None:
    def call(index: int, **function: str) -> str:
        more = {"id": f"call{index}", "type": "function"} if "name" in function else {}
        return chunk({"tool_calls": [{"index": index, "function": function} | more]})

    body = events(
        call(0, name="add", arguments=""),
        call(0, arguments='{"a": 1}'),
        call(1, name="sub", arguments='{"b"'),
        call(1, arguments=": 2}"),
    )
    stream = place.openai().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_body=body)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for one in stream:
        for found in one.choices[0].delta.tool_calls or [] if one.choices else []:
            assert found.function is not None
            names[found.index] = names.get(found.index, "") + (found.function.name or "")
            arguments[found.index] = arguments.get(found.index, "") + (found.function.arguments or "")
    assert names == {0: "add", 1: "sub"}
    assert [json.loads(text) for text in arguments.values()] == [{"a": 1}, {"b": 2}]


def test_openai_cancels_and_many_at_once(place: Place) -> None:
    client = place.openai()

    def ask(number: int) -> int:
        body = {"fake": {"words": 500, "pace": 0.005}}
        stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_body=body)
        got = 0
        for one in stream:
            got += bool(one.choices and one.choices[0].delta.content)
            if got == 10:
                break
        stream.close()
        return got

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == [10] * 16
    rows = [row for row in usage(place.state, "--by", "request")["rows"] if row["status"] == "cancelled"]
    assert len(rows) == 16
    assert all(10 <= row["output_tokens"] < 100 for row in rows)


def test_openai_errors(place: Place) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{place.door.url}/v1", api_key="nope", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        place.openai().chat.completions.create(model="other", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        place.openai().chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=-1)
    limited = add_tenant(place.state, "limited", "--requests-per-minute", "1")
    client = openai.OpenAI(base_url=f"{place.door.url}/v1", api_key=limited, max_retries=0)
    client.chat.completions.create(model=MODEL, messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    body = {"fake": {"die_last": True}}
    stream = place.openai().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_body=body)
    with pytest.raises(openai.APIError, match="the engine went away"):
        list(stream)


def test_anthropic(place: Place) -> None:
    """Messages as an engine that has them streams them, and errors as this client reads them."""

    def event(kind: str, **more: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | more)}\n\n"

    message: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": MODEL,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 0, "cache_read_input_tokens": 8},
    }
    stream = [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": " you"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 6}),
        event("message_stop"),
    ]
    client = anthropic.Anthropic(base_url=place.door.url, api_key=place.key, max_retries=0)
    ask: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": MESSAGES}
    with client.messages.stream(**ask, extra_body={"fake": {"events": stream}}) as answer:
        assert "".join(answer.text_stream) == "Hello you"
        assert answer.get_final_message().usage.output_tokens == 6
    row = usage(place.state, "--by", "request")["rows"][-1]
    assert [row[kind] for kind in ("prompt_tokens", "cached_tokens", "output_tokens")] == [11, 8, 6]
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=place.door.url, api_key="no", max_retries=0).messages.create(**ask)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**ask | {"model": "other"})
