"""The routes that generate, and what differs between them: how lengths are asked for, how deltas and ends look."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """One route.

    lengths: fields that bound one choice's output, as clients and engines spell them; the first is what the door adds.
    asks_usage: whether streams carry usage only if `stream_options` says so. says_reasoning: whether usage has a place
    for reasoning tokens.
    delta: matches each non-empty piece of text; its first group says of which kind. text: the same with the text, as
    JSON writes it, in a second group; None where it stands elsewhere. reasoning: kinds that are reasoning.
    end: matches what is sent when the stream is whole. finish: what makes it whole though the end was not said.
    """

    path: str
    lengths: tuple[str, ...]
    asks_usage: bool
    says_reasoning: bool
    delta: re.Pattern[bytes]
    text: re.Pattern[bytes] | None
    reasoning: frozenset[bytes]
    end: re.Pattern[bytes]
    finish: re.Pattern[bytes]


def _begins(kinds: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'"(' + kinds + rb')"\s*:\s*"[^"]')


def _whole(kinds: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'"(' + kinds + rb')"\s*:\s*"((?:[^"\\]|\\.)+)"', re.DOTALL)


ALIASES = ("n_predict", "max_new_tokens")
"""What llama.cpp and SGLang also read."""
FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)

CHAT = Dialect(
    path="/v1/chat/completions",
    lengths=("max_tokens", "max_completion_tokens", *ALIASES),
    asks_usage=True,
    says_reasoning=True,
    delta=_begins(b"content|reasoning_content|reasoning|arguments"),
    text=_whole(b"content|reasoning_content|reasoning|arguments"),
    reasoning=frozenset((b"reasoning_content", b"reasoning")),
    end=DONE,
    finish=FINISH,
)
COMPLETIONS = Dialect(
    path="/v1/completions",
    lengths=("max_tokens", *ALIASES),
    asks_usage=True,
    says_reasoning=True,
    delta=_begins(b"text"),
    text=_whole(b"text"),
    reasoning=frozenset(),
    end=DONE,
    finish=FINISH,
)
MESSAGES = Dialect(
    path="/v1/messages",
    lengths=("max_tokens", *ALIASES),
    asks_usage=False,
    says_reasoning=False,
    delta=_begins(b"text|thinking|partial_json"),
    text=_whole(b"text|thinking|partial_json"),
    reasoning=frozenset((b"thinking",)),
    end=re.compile(rb"^event:\s*message_stop", re.MULTILINE),
    finish=re.compile(rb'"stop_reason"\s*:\s*"'),
)
RESPONSES = Dialect(
    path="/v1/responses",
    lengths=("max_output_tokens", "max_tokens", *ALIASES),
    asks_usage=False,
    says_reasoning=True,
    delta=re.compile(rb'"type"\s*:\s*"response\.(output_text|reasoning_text|function_call_arguments)\.delta"'),
    text=None,
    reasoning=frozenset((b"reasoning_text",)),
    end=re.compile(rb"^event:\s*response\.(?:completed|incomplete|failed)", re.MULTILINE),
    finish=re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete|failed)"'),
)
DIALECTS = {dialect.path: dialect for dialect in (CHAT, COMPLETIONS, MESSAGES, RESPONSES)}
