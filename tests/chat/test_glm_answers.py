"""The GLM output format: what comes out does not depend on how the text was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.chat.answer import Answer
from halfbyte.models.glm_answers import GlmFormat

CASES = {
    "plain": ("hello", True, ("hello", "", [])),
    "reasoned": ("because</think>hello", True, ("because", "hello", [])),
    "thinking off": ("hello <b>", False, ("", "hello <b>", [])),
    "opening tag repeated": ("<think>why</think>so", True, ("why", "so", [])),
    "stop": ("a</think>b<|user|>never", True, ("a", "b", [])),
    "call": (
        "use it</think><tool_call>f<arg_key>a</arg_key><arg_value>7</arg_value></tool_call>",
        True,
        ("use it", "", [{"name": "f", "arguments": '{"a": 7}'}]),
    ),
    "call inside reasoning": ("x<tool_call>f</tool_call>y", True, ("x", "y", [{"name": "f", "arguments": "{}"}])),
    "two calls and newlines": (
        "</think>go<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>a b</arg_value>\n</tool_call>"
        "<tool_call>g</tool_call>.",
        True,
        ("", "go.", [{"name": "f", "arguments": '{"k": "a b"}'}, {"name": "g", "arguments": "{}"}]),
    ),
    "nameless call": ("</think><tool_call></tool_call>done", True, ("", "done", [])),
    "unfinished call": ("</think>text<tool_call>f<arg_key>k", True, ("", "text", [])),
    "ends like a tag": ("</think>a <tool_", True, ("", "a <tool_", [])),
}


def parsed(pieces: list[str], reasoning: bool) -> tuple[str, str, list[dict[str, str]]]:
    parser, answer = GlmFormat(reasoning), Answer()
    for piece in pieces:
        for delta in parser.feed(piece):
            answer.add(delta)
    for delta in parser.finish():
        answer.add(delta)
    return answer.reasoning, answer.content, answer.tool_calls


@pytest.mark.parametrize("case", CASES)
def test_whole_and_one_character_at_a_time(case: str) -> None:
    text, reasoning, wanted = CASES[case]
    assert parsed([text], reasoning) == wanted
    assert parsed(list(text), reasoning) == wanted


WORDS = st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "f", "<", "</", "a ", "\n"])


@given(st.lists(WORDS, max_size=12), st.data())
def test_any_cut_gives_the_same(words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parsed(pieces, True) == parsed([text], True)
    for call in parsed([text], True)[2]:
        assert isinstance(json.loads(call["arguments"]), dict)
