"""Raw text of an upstream, told apart: the same message for every cut, and over real sockets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.models.markup import MARKUPS, Markup
from halfbyte.models.schema_types import typed
from halfbyte.serve.door.reparse import StreamReparser, markup_for, reparsed

from .doors import RunningDoor, add_tenant, door, halfbyte, usage
from .fakes import chunk, fake_upstream, usage_chunk

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "metric": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "place": {"$ref": "#/$defs/place"},
    },
    "$defs": {"place": {"type": "object"}},
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
GLM_CALL = (
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value> Zürich 5</arg_value>\n<arg_key>days</arg_key>"
    "<arg_value>3</arg_value><arg_key>metric</arg_key><arg_value>True</arg_value><arg_key>place</arg_key>"
    "<arg_value>{'a': 1}</arg_value></tool_call>"
)
ARGUMENTS = {"city": " Zürich 5", "days": 3, "metric": True, "place": {"a": 1}}
JSON_CALL = '{"name": "weather", "arguments": {"city": "서울"}}'
DEEPSEEK_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
    '{"city": "서울"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
KIMI_CALL = (
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "서울"}'
    "<|tool_call_end|><|tool_calls_section_end|>"
)
SEOUL = [("weather", {"city": "서울"})]
Case = tuple[str, str, bool, str, str, list[tuple[str, Any]]]
CASES: dict[str, Case] = {
    "glm": ("glm47", f"생각 a < b</think>\n안녕 \n{GLM_CALL}", True, "생각 a < b", "안녕", [("weather", ARGUMENTS)]),
    "glm twice": ("glm47", f"r</think>{GLM_CALL}\n{GLM_CALL}", True, "r", "", [("weather", ARGUMENTS)] * 2),
    "glm in reasoning": ("glm47", f"r{GLM_CALL}after", True, "r", "after", [("weather", ARGUMENTS)]),
    "glm with its opening tag": ("glm45", "\n<think>r</think>c", True, "r", "c", []),
    "glm without an end": ("glm45", "only reasons", True, "only reasons", "", []),
    "glm cut within a call": ("glm47", "r</think>c<tool_call>weather<arg", True, "r", "c<tool_call>weather<arg", []),
    "glm unknown": ("glm47", "</think><tool_call>x</tool_call>", True, "", "<tool_call>x</tool_call>", []),
    "glm nameless": ("glm47", "</think><tool_call></tool_call>", True, "", "<tool_call></tool_call>", []),
    "glm no arguments": ("glm47", "</think><tool_call>weather</tool_call>", True, "", "", [("weather", {})]),
    "glm a quoted tag": ("glm47", "r</think>say <think> and <tool_", True, "r", "say <think> and <tool_", []),
    "glm without tools": ("glm47", f"r</think>{GLM_CALL}", False, "r", GLM_CALL, []),
    "hermes": ("hermes", f"안녕\n<tool_call>\n{JSON_CALL}\n</tool_call>", True, "", "안녕", SEOUL),
    "hermes that thinks": ("hermes", f"<think>r</think>\nc<tool_call>{JSON_CALL}</tool_call>", True, "r", "c", SEOUL),
    "hermes no JSON": ("hermes", "<tool_call>{</tool_call>", True, "", "<tool_call>{</tool_call>", []),
    "deepseek": ("deepseek", f"이유</think>\n\n{DEEPSEEK_CALL}", True, "이유", "", SEOUL),
    "kimi": ("kimi", f"안녕 {KIMI_CALL}", True, "", "안녕", SEOUL),
}
"""Name -> parser, text, whether tools are given, reasoning, content, calls."""


def request(tools: bool) -> dict[str, Any]:
    return {"tools": TOOLS} if tools else {}


def parser(name: str, tools: bool) -> Markup:
    return markup_for((name, name), request(tools))()


def message(pieces: list[str], markup: Markup) -> tuple[str, str, list[tuple[str, Any]]]:
    deltas = [delta for piece in pieces for delta in markup.feed(piece)] + list(markup.finish())
    calls: list[list[str]] = []
    for delta in deltas:
        if delta.kind == "tool_name":
            calls.append([delta.text, ""])
        elif delta.kind == "tool_arguments":
            calls[delta.call][1] += delta.text
    reasoning = "".join(delta.text for delta in deltas if delta.kind == "reasoning")
    content = "".join(delta.text for delta in deltas if delta.kind == "content")
    return reasoning, content, [(name, json.loads(arguments)) for name, arguments in calls]


@pytest.mark.parametrize("case", CASES)
def test_every_cut_in_two_and_every_letter_alone(case: str) -> None:
    name, text, tools, *wanted = CASES[case]
    for at in range(len(text) + 1):
        assert list(message([text[:at], text[at:]], parser(name, tools))) == wanted
    assert list(message(list(text), parser(name, tools))) == wanted


@given(st.data())
def test_any_text_is_the_same_for_any_cut(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MARKUPS)))
    words = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "weather",
        JSON_CALL,
        "<arg_key>",
        " ",
        "\n",
        "한",
        "<",
    ]
    words += ["한", "<|tool_call_begin|>", "<|tool_call_end|>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "a"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=12)))
    whole = message([text], parser(name, True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert message(pieces, parser(name, True)) == whole


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("7", {"type": "string"}, "7"),
        ('"7"', {"type": "string"}, '"7"'),
        ("7", {"type": "integer"}, 7),
        ('"5"', {"type": "number"}, 5),
        ("True", {"type": "boolean"}, True),
        ("true", {"type": "integer"}, "true"),
        ("null", {"type": ["string", "null"]}, None),
        ("x", {"type": "integer"}, "x"),
        ("7", None, 7),
        ("7", {}, 7),
        ('"a"', None, '"a"'),
        ("b", {"enum": ["a", "b"]}, "b"),
        ("[1", {"type": "array"}, "[1"),
        ("[" * 100_000, {"type": "array"}, "[" * 100_000),
    ],
)
def test_values_are_typed_by_the_schema(text: str, schema: Any, value: Any) -> None:
    found = typed(text, schema)
    assert found == value
    assert type(found) is type(value)


def test_a_schema_that_leads_to_itself() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert typed("7", schema) == 7


@given(st.lists(st.integers(1, 400), max_size=8))
def test_a_stream_of_bytes_is_the_same_for_any_cut(lengths: list[int]) -> None:
    name, text, *_ = CASES["glm"]
    events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": one}) for one in text)]
    raw = "".join([*events, chunk({}, finish_reason="stop"), usage_chunk(5, 9), "data: [DONE]\n\n"]).encode()
    reparser, out = StreamReparser(markup_for((name, name), request(True)), "id"), b""
    for length in lengths:
        out, raw = out + reparser.feed(raw[:length]), raw[length:]
    out += reparser.feed(raw) + reparser.rest()
    assert merged(out.decode()) == (CASES["glm"][3], CASES["glm"][4], CASES["glm"][5], "tool_calls")
    assert out.endswith(b"data: [DONE]\n\n")
    assert b'"completion_tokens": 9' in out


def merged(stream: str) -> tuple[str, str, list[tuple[str, Any]], str | None]:
    reasoning = content = ""
    finish, calls = None, dict[int, list[str]]()
    for line in stream.split("\n\n"):
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            delta = choice["delta"]
            reasoning += delta.get("reasoning_content") or ""
            content += delta.get("content") or ""
            finish = choice.get("finish_reason") or finish
            for call in delta.get("tool_calls") or ():
                one = calls.setdefault(call["index"], ["", ""])
                one[0] += call["function"].get("name", "")
                one[1] += call["function"].get("arguments", "")
    return reasoning, content, [(name, json.loads(arguments)) for name, arguments in calls.values()], finish


def test_a_whole_answer() -> None:
    _, text, _, reasoning, _, calls = CASES["glm"]
    document = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    found = reparsed(document, markup_for(("glm45", "glm47"), request(True)), "id")["choices"][0]
    assert found["message"]["reasoning_content"] == reasoning
    assert [json.loads(one["function"]["arguments"]) for one in found["message"]["tool_calls"]] == [calls[0][1]]
    assert found["finish_reason"] == "tool_calls"
    document["choices"][0]["finish_reason"] = "length"
    assert reparsed(document, markup_for(("glm45", "glm47"), {}), "id")["choices"][0]["finish_reason"] == "length"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningDoor, Path, str]]:
    folder = tmp_path_factory.mktemp("reparse")
    state = folder / "state"
    key = add_tenant(state, "t")
    options = ("--state", str(state), "--reparse", "glm45,glm47")
    with fake_upstream() as fake, door("m", "--upstream", fake.url, *options, log=folder / "log") as running:
        yield running, state, key


def test_over_real_sockets(place: tuple[RunningDoor, Path, str]) -> None:
    running, state, key = place
    _, text, *_ = CASES["glm"]
    events = [*(chunk({"content": one}) for one in text), chunk({}, finish_reason="stop"), usage_chunk(5, len(text))]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, "stream": True}
    with running.client(key) as client:
        streamed = client.post("/v1/chat/completions", json=body | {"fake": {"events": [*events, "data: [DONE]\n\n"]}})
        answer: dict[str, Any] = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
        answer |= {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
        body |= {"stream": False, "fake": {"answer": answer}}
        whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert merged(streamed.text)[2:] == ([("weather", ARGUMENTS)], "tool_calls")
    assert whole["message"]["content"] == "안녕"
    assert whole["finish_reason"] == "tool_calls"
    assert usage(state)["totals"]["output_tokens"] == len(text) + 7


@pytest.mark.parametrize("words", [("--reparse", "glm46"), ("--reparse", "glm45,glm47,kimi"), ("--reparse", "")])
def test_an_unknown_parser(words: tuple[str, ...]) -> None:
    assert "glm47" in halfbyte("serve", "m", "--upstream", "http://127.0.0.1:9", *words, code=2)
