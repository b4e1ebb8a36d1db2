"""What an engine takes and gives: a conversation and how to sample in, the answer in pieces out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from halfbyte.chat.options import Sampling
from halfbyte.models.answers import Delta


@dataclass(frozen=True)
class Summary:
    """Ends every answer. ttft_ms: from the request to the first piece. Rates in tokens per second, 0 if unknown."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    ttft_ms: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


@dataclass
class Answer:
    """Deltas put together."""

    reasoning: str = ""
    content: str = ""
    tool_calls: list[dict[str, str]] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        if delta.kind == "reasoning":
            self.reasoning += delta.text
        elif delta.kind == "content":
            self.content += delta.text
        elif delta.kind == "tool_name":
            self.tool_calls.append({"name": delta.text, "arguments": ""})
        else:
            self.tool_calls[delta.call]["arguments"] += delta.text

    def as_message(self) -> dict[str, Any]:
        """The assistant's turn, for the next request."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [{"type": "function", "function": call} for call in self.tool_calls]
        return message


class Engine(Protocol):
    """A loaded model. `label` says what runs it."""

    label: str

    def stream(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], sampling: Sampling
    ) -> Iterator[Delta | Summary]:
        """Deltas as they come, then one Summary."""
        ...
