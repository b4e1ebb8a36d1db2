"""Answers of an upstream that gives raw text, put into OpenAI's fields: whole ones, and streams event by event."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from halfbyte.errors import UsageError, said
from halfbyte.models.answers import Delta
from halfbyte.models.markup import MARKUPS, Markup
from halfbyte.serve.door.meter import payload


def reparse_from(text: str | None) -> tuple[str, str] | None:
    """Names of the parsers of reasoning and of calls: `glm45,glm47`, or one name for both. Raises UsageError."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    unknown = next((name for name in names if name not in MARKUPS), None)
    if unknown is not None or len(names) > 2:
        known = ", ".join(MARKUPS)
        wrong = unknown if unknown is not None else text
        raise UsageError(
            said("{reparse} {wrong!r}: no such parser", wrong=wrong[:60]),
            hint=f"known: {known}; REASONING,CALLS or one name for both",
        )
    return names[0], names[-1]


def markup_for(names: tuple[str, str], request: Mapping[str, Any]) -> Callable[[], Markup]:
    """Makes the parser of each of a request's answers."""
    tools: dict[str, Any] = {}
    if request.get("tool_choice") != "none":
        for one in request.get("tools") or ():
            function = one.get("function") if isinstance(one, Mapping) else None
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                tools[function["name"]] = function.get("parameters") or {}
    options = request.get("chat_template_kwargs")
    options = options if isinstance(options, Mapping) else {}
    thinks = not any(options.get(name) is False for name in ("enable_thinking", "thinking"))
    thinking, calling = MARKUPS[names[0]][0], MARKUPS[names[1]][1]
    return lambda: Markup(thinking, calling, tools, thinks)


def reparsed(document: dict[str, Any], make: Callable[[], Markup], id: str) -> dict[str, Any]:
    """A whole answer. Choices whose content is no text stay as they are."""
    choices = []
    for number, choice in enumerate(document.get("choices") or ()):
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            markup = make()
            found = _message([*markup.feed(message["content"]), *markup.finish()], f"{id}-{number}")
            choice = {**choice, "message": {**message, **found}, "finish_reason": _finished(choice, markup)}
        choices.append(choice)
    return {**document, "choices": choices}


def _finished(choice: Mapping[str, Any], markup: Markup) -> Any:
    stated = choice.get("finish_reason")
    return "tool_calls" if markup.calls and stated == "stop" else stated


def _message(deltas: list[Delta], id: str) -> dict[str, Any]:
    reasoning = "".join(one.text for one in deltas if one.kind == "reasoning")
    content = "".join(one.text for one in deltas if one.kind == "content")
    calls: list[dict[str, Any]] = []
    for one in deltas:
        if one.kind == "tool_name":
            function = {"name": one.text, "arguments": ""}
            calls.append({"id": _call_id(id, one.call), "type": "function", "function": function})
        elif one.kind == "tool_arguments":
            calls[one.call]["function"]["arguments"] += one.text
    found: dict[str, Any] = {"content": content or (None if calls else "")}
    if reasoning:
        found["reasoning_content"] = reasoning
    if calls:
        found["tool_calls"] = calls
    return found


def _call_id(id: str, number: int) -> str:
    return f"call_{id}-{number}"


@dataclass
class StreamReparser:
    """One stream. make: parsers, one a choice. id: of the request."""

    make: Callable[[], Markup]
    id: str
    _choices: dict[int, Markup] = field(default_factory=dict)
    _held: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Whole events of what came, with their deltas told apart."""
        self._held += data
        *events, self._held = self._held.split(b"\n\n")
        return b"".join(self._event(event + b"\n\n") for event in events)

    def rest(self) -> bytes:
        rest, self._held = self._held, b""
        return rest

    def _event(self, event: bytes) -> bytes:
        document = payload(event)
        choices = document.get("choices") if document is not None else None
        if document is None or not isinstance(choices, list) or not choices:
            return event
        out = []
        for choice in choices:
            out += [{**document, "choices": [one]} for one in self._choice(choice)]
        if len(out) > 1 and "usage" in document:
            out = [{key: value for key, value in one.items() if key != "usage"} for one in out[:-1]] + out[-1:]
        if not out and document.get("usage"):
            out = [{**document, "choices": []}]
        return b"".join(b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in out)

    def _choice(self, choice: Any) -> Iterator[Any]:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            yield choice
            return
        index = choice.get("index") if isinstance(choice.get("index"), int) else 0
        markup = self._choices.setdefault(index, self.make())
        text = delta.get("content")
        other = {key: value for key, value in delta.items() if key != "content"}
        deltas = list(markup.feed(text)) if isinstance(text, str) else []
        ends = choice.get("finish_reason") is not None
        deltas += list(markup.finish()) if ends else []
        plain = {key: value for key, value in choice.items() if key != "finish_reason"}
        for one in deltas:
            yield {**plain, "delta": {**other, **self._fields(index, one)}, "finish_reason": None}
            other = {}
        if ends:
            yield {**choice, "delta": other, "finish_reason": _finished(choice, markup)}
        elif other:
            yield {**choice, "delta": other}

    def _fields(self, index: int, delta: Delta) -> dict[str, Any]:
        if delta.kind == "reasoning":
            return {"reasoning_content": delta.text}
        if delta.kind == "content":
            return {"content": delta.text}
        call: dict[str, Any] = {"index": delta.call}
        if delta.kind == "tool_name":
            call |= {"id": _call_id(f"{self.id}-{index}", delta.call), "type": "function"}
            return {"tool_calls": [call | {"function": {"name": delta.text, "arguments": ""}}]}
        return {"tool_calls": [call | {"function": {"arguments": delta.text}}]}
