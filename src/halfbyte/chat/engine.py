"""What an engine takes and gives, and which one is taken."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.progress import Progress

EngineName = Literal["auto", "llama.cpp", "transformers"]
ENGINES: tuple[EngineName, ...] = ("auto", "llama.cpp", "transformers")


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. seed: None for another answer every time. thinking: None leaves it to the template."""

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking: bool | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of the answer as it streams. For a tool call, `text` is the function's name and then JSON fragments."""

    kind: Literal["reasoning", "content", "tool_name", "tool_arguments"]
    text: str
    call: int = 0


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


def choose(name: EngineName) -> Literal["llama.cpp", "transformers"]:
    """The engine to use: llama.cpp where it is installed, else transformers. Raises UnsupportedError, UsageError."""
    if name not in ENGINES:
        raise UsageError(f"--engine {name}: wanted one of {', '.join(ENGINES)}")
    has_llama = all(importlib.util.find_spec(module) for module in ("xllamacpp", "gguf"))
    has_transformers = all(importlib.util.find_spec(module) for module in ("torch", "transformers"))
    if name == "llama.cpp" and not has_llama:
        raise UnsupportedError("the llama.cpp engine needs xllamacpp and gguf", hint="pip install 'halfbyte[local]'")
    if name == "transformers" and not has_transformers:
        raise UnsupportedError("the transformers engine needs torch", hint="pip install 'halfbyte[torch]'")
    if name == "auto":
        if not has_llama and not has_transformers:
            raise UnsupportedError("no engine is installed", hint="pip install 'halfbyte[local]' for llama.cpp")
        return "llama.cpp" if has_llama else "transformers"
    return name


def load(
    path: Path, name: EngineName, context_tokens: int, progress: Progress, confirm: Callable[[str], bool]
) -> Engine:
    """Load a checkpoint folder (or, for llama.cpp, a GGUF file). confirm: asked before a large cache file is made.

    Raises HalfbyteError.
    """
    if choose(name) == "llama.cpp":
        from halfbyte.chat.gguf_cache import cached_gguf
        from halfbyte.chat.llamacpp import LlamaCpp

        file = path if path.suffix == ".gguf" else cached_gguf(path, progress, confirm)
        return LlamaCpp(file, context_tokens)
    from halfbyte.chat.hf import Transformers

    return Transformers(path)
