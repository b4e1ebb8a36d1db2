"""Streams as upstreams really send them: counted the same for every cut, and passed on byte for byte."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from halfbyte.serve.door.counting import tokens_of
from halfbyte.serve.door.dialects import CHAT, MESSAGES, RESPONSES
from halfbyte.serve.door.meter import StreamMeter, Texts
from halfbyte.serve.money import Tokens
from serve.fakes import chunk, usage_chunk

DONE = "data: [DONE]\n\n"
WORDS = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": f"w{n}"}) for n in range(5))]
FINISH = chunk({}, finish_reason="stop")
FIGURES = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def with_usage(event: str, **figures: Any) -> str:
    document = json.loads(event[6:])
    return f"data: {json.dumps(document | {'usage': FIGURES | figures})}\n\n"


STREAMS: dict[str, tuple[list[str], Tokens]] = {
    "own chunk": ([*WORDS, FINISH, usage_chunk(11, 7), DONE], Tokens(11, 0, 7)),
    "with choices": ([*WORDS, with_usage(FINISH), DONE], Tokens(11, 0, 7)),
    "in every chunk": (
        [with_usage(event, completion_tokens=n) for n, event in enumerate(WORDS)] + [with_usage(FINISH), DONE],
        Tokens(11, 0, 7),
    ),
    "none": ([*WORDS, FINISH, DONE], Tokens(99, 0, 5)),
    "null": (
        [event.replace('"choices"', '"usage": null, "choices"') for event in WORDS] + [FINISH, DONE],
        Tokens(99, 0, 5),
    ),
    "null details": (
        [*WORDS, FINISH, usage_chunk(11, 7, prompt_tokens_details=None, completion_tokens_details=None), DONE],
        Tokens(11, 0, 7),
    ),
    "details": (
        [
            *WORDS,
            usage_chunk(
                11, 7, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details={"reasoning_tokens": 3}
            ),
            DONE,
        ],
        Tokens(11, 4, 7, 3),
    ),
    "more cached than prompt": ([usage_chunk(3, 2, prompt_tokens_details={"cached_tokens": 9}), DONE], Tokens(3, 3, 2)),
    "cut before usage": (WORDS[:4], Tokens(99, 0, 3)),
    "cut after usage in every chunk": (
        [with_usage(event, completion_tokens=2 * n) for n, event in enumerate(WORDS)] + [chunk({"content": "more"})],
        Tokens(11, 0, 11),
    ),
    "reasoning, both spellings": (
        [chunk({"reasoning_content": "a"}), chunk({"reasoning": "b"}), chunk({"content": "c"}), DONE],
        Tokens(99, 0, 3, 2),
    ),
    "tool arguments": (
        [
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
            DONE,
        ],
        Tokens(99, 0, 2),
    ),
    "two fields in one delta": ([chunk({"content": "a", "reasoning_content": "b"}), DONE], Tokens(99, 0, 1, 1)),
    "two choices in one event": (
        [
            f"data: {json.dumps({'choices': [{'index': n, 'delta': {'content': 'x'}} for n in range(2)]})}\n\n",
            DONE,
        ],
        Tokens(99, 0, 2),
    ),
    "comments and CRLF": ([": ping\r\n\r\n", *(e.replace("\n", "\r\n") for e in WORDS), DONE], Tokens(99, 0, 5)),
    "floats and strings": (
        [usage_chunk(11, 0, completion_tokens="many", prompt_tokens=11.0, total_tokens=None), WORDS[1], DONE],
        Tokens(11, 0, 1),
    ),
    "a quoted usage": ([chunk({"content": '"usage": {"prompt_tokens": 1}'}), DONE], Tokens(99, 0, 1)),
    "unicode": (
        [chunk({"content": "é ☃ 𝄞"}), 'data: {"choices":[{"delta":{"content":"☃"}}]}\n\n', DONE],
        Tokens(99, 0, 2),
    ),
}


def read(events: bytes, cuts: list[int], show: bool) -> tuple[bytes, Tokens, StreamMeter]:
    meter = StreamMeter(CHAT, show, Texts(CHAT))
    out, start = b"", 0
    for cut in [*sorted(cuts), len(events)]:
        if cut > start:
            out += meter.feed(events[start:cut])
            start = cut
    out += meter.rest()
    return out, meter.tokens(99), meter


@pytest.mark.parametrize("name", STREAMS)
def test_figures_of_every_form(name: str) -> None:
    events, wanted = STREAMS[name]
    stream = "".join(events).encode()
    out, tokens, meter = read(stream, [], show=True)
    assert tokens == wanted
    assert out == stream
    assert meter.done == (DONE in events)


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_cut_gives_the_same(name: str, data: st.DataObject) -> None:
    events, _ = STREAMS[name]
    stream = "".join(events).encode()
    cuts = data.draw(st.lists(st.integers(1, max(len(stream) - 1, 1)), max_size=8))
    for show in (True, False):
        whole, cut = read(stream, [], show), read(stream, cuts, show)
        assert whole[:2] == cut[:2]
        assert whole[2].texts is not None
        assert cut[2].texts is not None
        for reasoning in (True, False):
            assert whole[2].texts.of(reasoning) == cut[2].texts.of(reasoning)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
PIECE = st.tuples(st.sampled_from(["content", "reasoning_content", "reasoning"]), TEXT)


@given(st.lists(PIECE, min_size=1), st.booleans(), st.data())
def test_texts_are_those_of_the_events_however_they_come(
    pieces: list[tuple[str, str]], ascii_only: bool, data: st.DataObject
) -> None:
    events = [
        f"data: {json.dumps({'choices': [{'delta': {kind: text}}]}, ensure_ascii=ascii_only)}\n\n"
        for kind, text in pieces
    ]
    texts, start = Texts(CHAT), 0
    while start < len(events):
        stop = start + data.draw(st.integers(1, 3))
        texts.add("".join(events[start:stop]).encode(), len(events[start:stop]))
        start = stop
        if data.draw(st.booleans()):
            texts.of(reasoning=True)
    for reasoning in (True, False):
        assert texts.of(reasoning) == "".join(text for kind, text in pieces if (kind != "content") is reasoning)


def test_every_single_byte_by_itself() -> None:
    stream = "".join(STREAMS["details"][0]).encode()
    assert read(stream, list(range(len(stream))), True)[:2] == (stream, Tokens(11, 4, 7, 3))


@pytest.mark.parametrize("name", STREAMS)
def test_usage_that_the_client_did_not_ask_for_is_kept_from_it(name: str) -> None:
    events, _ = STREAMS[name]
    out, _, _ = read("".join(events).encode(), [], show=False)
    shown = [json.loads(line[6:]) for line in out.decode().splitlines() if line.startswith("data: {")]
    assert not any(document.get("usage") for document in shown)
    kept = [json.loads(line[6:]) for line in "".join(events).splitlines() if line.startswith("data: {")]
    assert [{**document, "usage": None} for document in shown] == [
        {**document, "usage": None} for document in kept if document.get("choices")
    ]


def test_events_without_usage_keep_their_bytes_when_usage_is_hidden() -> None:
    odd = ['data:{"choices" : [ {"delta":{"content":"\\u00e9"}} ] }\n\n', ": ping\n\n", "event: x\ndata: 1\n\n"]
    out, _, _ = read("".join([*odd, usage_chunk(1, 1), DONE]).encode(), [], show=False)
    assert out == "".join([*odd, DONE]).encode()


def test_anthropic_and_responses() -> None:
    meter = StreamMeter(MESSAGES, True)
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 2, "cache_read_input_tokens": 9}}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
    for document in (start, delta, end, {"type": "message_stop"}):
        meter.feed(f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode())
    assert meter.tokens(99) == Tokens(11, 9, 4)
    assert meter.done
    meter = StreamMeter(RESPONSES, True)
    usage = {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}
    delta = {"type": "response.output_text.delta", "delta": "hi"}
    end = {"type": "response.completed", "response": {"usage": usage}}
    for document in (delta, end):
        meter.feed(f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode())
    assert meter.tokens(99) == Tokens(5, 0, 3, 1)
    assert meter.done


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, "x", {"completion_tokens": -1}, {"a": 10**30}, []]
)
def test_what_is_no_usage(usage: Any) -> None:
    assert tokens_of(usage) is None


def test_totals_fill_what_is_missing() -> None:
    assert tokens_of({"total_tokens": 9, "completion_tokens": 4}) == (5, Tokens(5, 0, 4))
    assert tokens_of({"total_tokens": 9, "prompt_tokens": 4}) == (4, Tokens(4, 0, 5))
