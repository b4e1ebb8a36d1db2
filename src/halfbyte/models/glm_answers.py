"""The text that GLM models write, as deltas: reasoning, content, tool calls. The same for any cut of the stream.

    reasoning</think>content<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>

Reasoning ends at </think> or at the first <tool_call>. Text that could be the start of a tag is held back until it is
not. Newlines after names and tags (GLM-4.5) are accepted. An unfinished call at the end is not emitted. Values that
parse as JSON objects, arrays, numbers, booleans or null are these, others are strings.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from halfbyte.models.answers import Delta
from halfbyte.text import json_of

STOPS = ("<|user|>", "<|observation|>", "<|endoftext|>")
TAGS = ("<think>", "</think>", "<tool_call>", *STOPS)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


class GlmFormat:
    """Feed text, get deltas. calls: how many were emitted. reasoning: whether the prompt left the model thinking."""

    def __init__(self, reasoning: bool) -> None:
        self._kind: Literal["reasoning", "content"] = "reasoning" if reasoning else "content"
        self._held = ""
        self._ended = False
        self.calls = 0

    def feed(self, text: str) -> Iterator[Delta]:
        self._held += text
        while self._held and not self._ended:
            if self._held.startswith("<tool_call>"):
                body, end, rest = self._held.removeprefix("<tool_call>").partition("</tool_call>")
                if not end:
                    return
                yield from self._call(body)
                self._held, self._kind = rest, "content"
                continue
            tag = min((tag for tag in TAGS if tag in self._held), key=self._held.index, default=None)
            at = self._held.index(tag) if tag else len(self._held) - _tag_start(self._held)
            if at:
                yield Delta(self._kind, self._held[:at])
                self._held = self._held[at:]
            if tag is None:
                return
            if at == 0 and tag != "<tool_call>":
                self._held = self._held.removeprefix(tag)
                self._ended = tag in STOPS
                self._kind = "content" if tag == "</think>" else self._kind

    def finish(self) -> Iterator[Delta]:
        """What was held back, if it was no tag after all."""
        if self._held and not self._ended and not self._held.startswith("<tool_call>"):
            yield Delta(self._kind, self._held)
        self._held = ""

    def _call(self, body: str) -> Iterator[Delta]:
        name = body.partition("<arg_key>")[0].strip()
        if not name:
            return
        arguments = {key.strip(): _value(value) for key, value in _ARGUMENT.findall(body)}
        yield Delta("tool_name", name, self.calls)
        yield Delta("tool_arguments", json.dumps(arguments, ensure_ascii=False), self.calls)
        self.calls += 1


def _tag_start(text: str) -> int:
    """Length of the longest end of `text` that begins a tag."""
    for length in range(min(len(text), max(map(len, TAGS)) - 1), 0, -1):
        if any(tag.startswith(text[-length:]) for tag in TAGS):
            return length
    return 0


def _value(text: str) -> Any:
    try:
        return json_of(text)
    except ValueError:
        return text
