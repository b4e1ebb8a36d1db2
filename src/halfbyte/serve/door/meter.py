"""Reads a stream as it passes: counts what is delivered, keeps usage, and leaves every other byte as it came.

No JSON is read for ordinary events: one regular expression over the bytes of each piece. Only events that hold usage,
an error or the end are looked into.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from halfbyte.serve.door.counting import says_reasoning, tokens_of
from halfbyte.serve.door.dialects import Dialect
from halfbyte.serve.money import Tokens

USAGE = re.compile(rb'"usage"\s*:\s*\{')
ERROR = re.compile(rb'^event:\s*error|^data:\s*\{\s*"error"', re.MULTILINE)
BOUNDARY = re.compile(rb"\r?\n\r?\n")
ENDS = (b"\n\n", b"\n\r\n")
MOST_EVENT_BYTES = 64 << 20
COMPACT_BYTES = 1 << 16


class EventTooLargeError(Exception):
    """An event that never ends."""


@dataclass(frozen=True)
class Held:
    """An event whose usage is to be filled in. usage: the object inside `document`."""

    event: bytes
    document: dict[str, Any]
    usage: dict[str, Any]

    def filled(self) -> bytes:
        """The event again, with what was put into its usage."""
        text = json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        lines = [line for line in self.event.splitlines() if line and not line.startswith(b"data:")]
        return b"\n".join([*lines, b"data: " + text]) + b"\n\n"


class Texts:
    """What was delivered, for an engine's tokenizer: reasoning apart. Read once in a while, not with each event."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._raw: list[bytes] = []
        self._size = 0
        self._one_each = True
        self._kinds: dict[bool, list[str]] = {True: [], False: []}
        """By whether it is reasoning."""

    def add(self, events: bytes, pieces: int) -> None:
        """pieces: of text in these events."""
        self._raw.append(events)
        self._size += len(events)
        self._one_each = self._one_each and pieces == 1
        if self._size > COMPACT_BYTES:
            self._compact()

    def of(self, reasoning: bool) -> str:
        self._compact()
        text = "".join(self._kinds[reasoning])
        self._kinds[reasoning] = [text]
        return text

    def _compact(self) -> None:
        raw, alone = b"".join(self._raw), self._one_each
        self._raw, self._size, self._one_each = [], 0, True
        if not (alone and self._dialect.text and self._quickly(self._dialect.text.findall(raw))):
            for event in BOUNDARY.split(raw):
                for kind, text in texts_of(payload(event)):
                    self._kinds[kind == "reasoning"].append(text)

    def _quickly(self, found: list[tuple[bytes, bytes]]) -> bool:
        """Read as one JSON string what stands in many; whether that went."""
        read = {}
        for reasoning in (True, False):
            bodies = [body for kind, body in found if (kind in self._dialect.reasoning) is reasoning]
            try:
                read[reasoning] = json.loads(b'"' + b"".join(bodies) + b'"')
            except ValueError:
                return False
        for reasoning, text in read.items():
            self._kinds[reasoning].append(text)
        return True


class StreamMeter:
    """One stream.

    show_usage: whether the client asked for it. holds: whether a usage that says nothing of reasoning is held back in
    `held`, for the caller to fill in. done: the end was said. whole: nothing is missing though it was not. failed: the
    upstream itself said that it went wrong.
    """

    def __init__(self, dialect: Dialect, show_usage: bool, texts: Texts | None = None, holds: bool = False) -> None:
        self._dialect, self._show_usage, self._holds = dialect, show_usage or not dialect.asks_usage, holds
        self._special = re.compile(
            b"|".join(p.pattern for p in (USAGE, ERROR, dialect.end, dialect.finish)), re.MULTILINE
        )
        self._tail = bytearray()
        self.texts = texts
        self.delivered = self.reasoning = 0
        self._usage = Tokens()
        self._usage_prompt: int | None = None
        self._counted_at_usage = self._reasoning_at_usage = 0
        self.has_usage = False
        self.says_reasoning = False
        self.held: list[bytes | Held] = []
        self.last_chunk: dict[str, Any] = {}
        self.done = self.whole = self.failed = False

    def feed(self, data: bytes) -> bytes:
        """What to pass on now. Where `held` is not empty afterwards, it is to be sent instead, usage filled in."""
        if self._tail or not data.endswith(ENDS):
            data = self._complete(data)
            if not data:
                return b""
        if not self._special.search(data):
            self._count(data)
            return data
        return self._carefully(data)

    def rest(self) -> bytes:
        """What came after the last whole event, at the end of a stream that was not cut."""
        rest = bytes(self._tail)
        self._tail.clear()
        out = self._special_event(rest) if rest else rest
        return out if isinstance(out, bytes) else rest

    def _complete(self, data: bytes) -> bytes:
        """Whole events; what is left of the last one waits."""
        start = max(len(self._tail) - 3, 0)
        self._tail += data
        ends = [found.end() for found in BOUNDARY.finditer(self._tail, start)]
        if not ends:
            if len(self._tail) > MOST_EVENT_BYTES:
                raise EventTooLargeError
            return b""
        whole = bytes(self._tail[: ends[-1]])
        del self._tail[: ends[-1]]
        return whole

    def _count(self, events: bytes) -> None:
        found = self._dialect.delta.findall(events)
        if not found:
            return
        if self.texts is not None:
            self.texts.add(events, len(found))
        if len(found) > 1 and len(found) > events.count(b"data:"):
            self._count_exactly(events)
            return
        self.delivered += len(found)
        reasoning = self._dialect.reasoning
        if reasoning:
            for kind in found:
                if kind in reasoning:
                    self.reasoning += 1

    def _count_exactly(self, events: bytes) -> None:
        """Several texts in one event: one for each choice that got any."""
        for event in BOUNDARY.split(events):
            kinds = [kind for kind, _ in texts_of(payload(event))]
            choices = (payload(event) or {}).get("choices")
            most = len(choices) if isinstance(choices, list) and choices else 1
            self.delivered += min(len(kinds), most)
            self.reasoning += min(kinds.count("reasoning"), most)

    def _carefully(self, data: bytes) -> bytes:
        out: list[bytes | Held] = []
        for event in _events(data):
            out.append(self._special_event(event) if self._special.search(event) else self._ordinary(event))
        if any(isinstance(piece, Held) for piece in out):
            self.held = out
            return b""
        return b"".join(piece for piece in out if isinstance(piece, bytes))

    def _ordinary(self, event: bytes) -> bytes:
        self._count(event)
        return event

    def _special_event(self, event: bytes) -> "bytes | Held":
        self._count(event)
        self.done = self.done or bool(self._dialect.end.search(event))
        self.whole = self.whole or bool(self._dialect.finish.search(event))
        self.failed = self.failed or bool(ERROR.search(event))
        if not USAGE.search(event):
            return event
        document = payload(event)
        holder = _holder(document)
        if document is None or holder is None:
            return event
        self._take(holder["usage"])
        if self._dialect.asks_usage:
            self.last_chunk = document
            if not self._show_usage:
                return b"" if not document.get("choices") else without_usage(event, document)
        if self._holds and not self.says_reasoning and self._dialect.says_reasoning:
            return Held(event, document, holder["usage"])
        return event

    def _take(self, usage: Any) -> None:
        found = tokens_of(usage)
        if found is None:
            return
        prompt, tokens = found
        if prompt is not None:
            self._usage_prompt = prompt
            self._usage = self._usage._replace(prompt=prompt, cached=tokens.cached)
        self._usage = self._usage._replace(output=tokens.output, reasoning=tokens.reasoning)
        self._counted_at_usage, self._reasoning_at_usage = self.delivered, self.reasoning
        self.has_usage = True
        self.says_reasoning = self.says_reasoning or says_reasoning(usage)

    @property
    def knows_prompt(self) -> bool:
        return self._usage_prompt is not None

    @property
    def output(self) -> int:
        """Output tokens so far: what usage said last, and one for each piece since."""
        if self.has_usage and (self._usage.output or not self._counted_at_usage):
            return self._usage.output + self.delivered - self._counted_at_usage
        return self.delivered

    @property
    def usage_is_last_word(self) -> bool:
        """Whether nothing was delivered since usage was said."""
        return self.has_usage and self.output == self._usage.output

    def tokens(self, prompt: int, output: int | None = None, reasoning: int | None = None) -> Tokens:
        """What to charge. The arguments: counted elsewhere, for what no usage said."""
        spent = self.output if output is None or self.usage_is_last_word else output
        thought = self._usage.reasoning + self.reasoning - self._reasoning_at_usage if self.says_reasoning else None
        if thought is None:
            thought = self.reasoning if reasoning is None else reasoning
        if self._usage_prompt is not None:
            prompt = self._usage_prompt
        return Tokens(prompt, min(self._usage.cached, prompt), spent, min(thought, spent))


def payload(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event, None if it holds none."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        document = json.loads(b"\n".join(lines))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _events(data: bytes) -> Iterator[bytes]:
    start = 0
    for boundary in BOUNDARY.finditer(data):
        yield data[start : boundary.end()]
        start = boundary.end()
    if start < len(data):
        yield data[start:]


def _holder(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The object that usage stands in: the event itself, Anthropic's `message`, Responses' `response`."""
    if document is None:
        return None
    for holder in (document, document.get("message"), document.get("response")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            return holder
    return None


def texts_of(document: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """(kind, text) of what an event or a whole answer delivers; kind is reasoning, content or arguments."""
    if document is None:
        return
    for choice in document.get("choices") or ():
        if not isinstance(choice, dict):
            continue
        yield from _of_message(choice.get("delta") or choice.get("message") or {})
        if isinstance(choice.get("text"), str) and choice["text"]:
            yield "content", choice["text"]
    delta = document.get("delta")
    if isinstance(delta, dict):  # Anthropic's
        for name, kind in (("text", "content"), ("thinking", "reasoning"), ("partial_json", "arguments")):
            if isinstance(delta.get(name), str) and delta[name]:
                yield kind, delta[name]
    elif isinstance(delta, str) and delta:  # Responses'
        yield "reasoning" if "reasoning" in str(document.get("type")) else "content", delta
    for items in (document.get("content"), document.get("output")):
        if isinstance(items, list):
            yield from _of_items(items)


def _of_message(message: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(message, dict):
        return
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            yield "reasoning", message[name]
            break
    if isinstance(message.get("content"), str) and message["content"]:
        yield "content", message["content"]
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str) and function["arguments"]:
            yield "arguments", function["arguments"]


def _of_items(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Anthropic's content blocks and Responses' output items."""
    for item in items:
        if not isinstance(item, dict):
            continue
        kind = "reasoning" if item.get("type") in ("thinking", "reasoning") else "content"
        for name in ("text", "thinking", "arguments"):
            if isinstance(item.get(name), str) and item[name]:
                yield kind, item[name]
        for nested in (item.get("content"), item.get("summary")):
            if isinstance(nested, list):
                yield from ((kind, text) for _, text in _of_items(nested))
        if isinstance(item.get("input"), dict) and item["input"]:
            yield "arguments", json.dumps(item["input"])


def without_usage(event: bytes, document: dict[str, Any]) -> bytes:
    """The event without its usage, every other byte as it came."""
    text = event.decode("utf-8", "surrogateescape")
    for found in re.finditer(r'"usage"\s*:\s*', text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError:
            continue
        if value != document["usage"]:
            continue
        before, after = text[: found.start()], text[end:]
        if before.rstrip().endswith(","):
            before = before.rstrip()[:-1]
        elif after.lstrip().startswith(","):
            after = after.lstrip()[1:]
        cut = (before + after).encode("utf-8", "surrogateescape")
        if payload(cut) == {name: item for name, item in document.items() if name != "usage"}:
            return cut
    rest = {name: item for name, item in document.items() if name != "usage"}
    return b"data: " + json.dumps(rest, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n\n"
