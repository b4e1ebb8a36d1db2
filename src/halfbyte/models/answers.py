"""What a model's answer is made of, whatever family writes it: reasoning, content, tool calls, as they stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Delta:
    """A piece of the answer as it streams. For a tool call, `text` is the function's name and then JSON fragments."""

    kind: Literal["reasoning", "content", "tool_name", "tool_arguments"]
    text: str
    call: int = 0


class AnswerFormat(Protocol):
    """Parses the text that one family writes, special tokens included. calls: how many tool calls were emitted."""

    calls: int

    def feed(self, text: str) -> Iterator[Delta]: ...

    def finish(self) -> Iterator[Delta]:
        """What was held back, if it was no tag after all."""
        ...


class PlainText:
    """Whatever a family writes whose markup is not known: all of it is content."""

    calls = 0

    def feed(self, text: str) -> Iterator[Delta]:
        if text:
            yield Delta("content", text)

    def finish(self) -> Iterator[Delta]:
        yield from ()
