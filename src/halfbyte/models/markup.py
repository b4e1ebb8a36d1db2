"""Raw text of models, as engines give it that parse nothing: reasoning, content and calls told apart as it streams.

The merged message is the same for every cut of the stream. Reasoning ends at its closing tag or at the first call. A
call is emitted when it is whole, is known to the request's tools, and has a name; whatever is not stays in the content
as it was written, an unfinished one at the end too. Without tools nothing is a call. Behaviour where engines differ:
docs/serve.md.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halfbyte.models.answers import Delta
from halfbyte.models.schema_types import typed
from halfbyte.text import json_of

Tools = Mapping[str, Any]
"""Name of a function -> the JSON Schema of its parameters."""
Parsed = tuple[str, str]
"""Name of a function, and its arguments as JSON."""


@dataclass(frozen=True)
class Thinking:
    """How reasoning is marked. open_before: whether the prompt left it open, unless the request turned it off."""

    open: str
    close: str
    open_before: bool


@dataclass(frozen=True)
class Calling:
    """How calls are marked. wrappers: tags around them that say nothing more. parse: of what stands between; None for
    what is no call."""

    open: str
    close: str
    parse: Callable[[str, Tools], Parsed | None]
    wrappers: tuple[str, ...] = ()


def _glm(body: str, tools: Tools) -> Parsed | None:
    """name, newline or not, then <arg_key>k</arg_key><arg_value>v</arg_value> pairs; the last of a key counts."""
    name = body.partition("<arg_key>")[0].strip()
    schema = tools.get(name) or {}
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    found = {}
    for key, value in _GLM_ARGUMENT.findall(body):
        of_key = properties.get(key.strip()) if isinstance(properties, Mapping) else None
        found[key.strip()] = typed(value, of_key, schema)
    return name, json.dumps(found, ensure_ascii=False)


_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _hermes(body: str, tools: Tools) -> Parsed | None:
    """{"name": ..., "arguments": {...}}"""
    try:
        found = json_of(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    return found["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _deepseek(body: str, tools: Tools) -> Parsed | None:
    """function<sep>name, then a fenced block of JSON (V3, R1), or name<sep>JSON (V3.1)."""
    first, separator, rest = body.partition("<｜tool▁sep｜>")
    fenced = re.fullmatch(r"\s*(\S+)\s*```(?:json)?\s*(.*?)\s*```\s*", rest, re.DOTALL)
    if not separator:
        return None
    name, arguments = (fenced[1], fenced[2]) if fenced is not None else (first.strip(), rest.strip())
    return (name, arguments) if _is_object(arguments) else None


def _kimi(body: str, tools: Tools) -> Parsed | None:
    """functions.name:0, then its arguments."""
    first, separator, arguments = body.partition("<|tool_call_argument_begin|>")
    name = re.fullmatch(r"\s*(?:functions\.)?(.+?)(?::\d+)?\s*", first, re.DOTALL)
    if not separator or name is None or not _is_object(arguments):
        return None
    return name[1], arguments.strip()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json_of(text), dict)
    except ValueError:
        return False


THINK = Thinking("<think>", "</think>", open_before=True)
THINK_IF_OPENED = Thinking("<think>", "</think>", open_before=False)
GLM_CALLS = Calling("<tool_call>", "</tool_call>", _glm)
HERMES_CALLS = Calling("<tool_call>", "</tool_call>", _hermes)
DEEPSEEK_CALLS = Calling(
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    _deepseek,
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
)
KIMI_CALLS = Calling(
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    _kimi,
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
)

MARKUPS: dict[str, tuple[Thinking | None, Calling]] = {
    "glm45": (THINK, GLM_CALLS),
    "glm47": (THINK, GLM_CALLS),
    "hermes": (THINK_IF_OPENED, HERMES_CALLS),
    "deepseek": (THINK, DEEPSEEK_CALLS),
    "kimi": (THINK_IF_OPENED, KIMI_CALLS),
}
"""By the name that engines give their parsers: how reasoning is marked, and how calls are."""


class Markup:
    """One answer. thinking, calling: None where that is not told apart. thinks: whether the request let it think."""

    def __init__(
        self, thinking: Thinking | None, calling: Calling | None, tools: Tools | None, thinks: bool = True
    ) -> None:
        self._thinking = thinking
        self._calling = calling if tools else None
        self._tools: Tools = tools or {}
        self._reasons = thinking is not None and thinking.open_before and thinks
        self._held = ""
        self._space = ""
        self._begun = False
        self._after_reasoning = False
        self.calls = 0

    def feed(self, text: str) -> Iterator[Delta]:
        self._held += text
        yield from self._taken(last=False)

    def finish(self) -> Iterator[Delta]:
        """What was held back. Blank text after a call is none."""
        yield from self._taken(last=True)
        if self._space and not self.calls:
            yield Delta("content", self._space)
        self._space = ""

    def _taken(self, last: bool) -> Iterator[Delta]:
        while self._held:
            if not self._begun and self._opening(last):
                return
            if self._calling is not None and self._held.startswith(self._calling.open):
                body, end, rest = self._held[len(self._calling.open) :].partition(self._calling.close)
                if not end and not last:
                    return
                if end:
                    self._held, self._reasons = rest, False
                    yield from self._call(self._calling, body)
                else:
                    whole, self._held = self._held, ""
                    yield from self._text(whole)
                continue
            tags = self._tags()
            tag = min((one for one in tags if one in self._held), key=self._held.index, default=None)
            at = self._held.index(tag) if tag is not None else len(self._held) - (0 if last else self._start(tags))
            if at:
                text, self._held = self._held[:at], self._held[at:]
                yield from self._text(text)
                continue
            if tag is None:
                return
            if self._calling is not None and tag == self._calling.open:
                continue
            self._held = self._held.removeprefix(tag)
            if self._reasons and self._thinking is not None and tag == self._thinking.close:
                self._reasons, self._after_reasoning = False, True

    def _opening(self, last: bool) -> bool:
        """Take the opening tag, if the text begins with it. Whether more must come before one can tell."""
        open_ = self._thinking.open if self._thinking is not None else None
        bare = self._held.lstrip()
        if open_ is not None and not last and len(bare) < len(open_) and open_.startswith(bare):
            return True
        if open_ is not None and bare.startswith(open_):
            self._held, self._reasons = bare.removeprefix(open_), True
        self._begun = True
        return False

    def _tags(self) -> Sequence[str]:
        """Those that mean something where we are."""
        tags = [] if self._calling is None else [self._calling.open, *self._calling.wrappers]
        if self._reasons and self._thinking is not None:
            tags.append(self._thinking.close)
        return tags

    def _start(self, tags: Sequence[str]) -> int:
        """Length of the longest end of what is held that begins a tag."""
        longest = max(map(len, tags), default=1) - 1
        for length in range(min(len(self._held), longest), 0, -1):
            if any(tag.startswith(self._held[-length:]) for tag in tags):
                return length
        return 0

    def _text(self, text: str) -> Iterator[Delta]:
        """Blank text is held until something follows, as before and between calls it is none."""
        if self._reasons:
            yield Delta("reasoning", text)
            return
        whole = self._space + text
        if self._after_reasoning:
            whole = whole.lstrip("\n")
        kept = whole.rstrip()
        self._space = whole[len(kept) :]
        if kept:
            self._after_reasoning = False
            yield Delta("content", kept)

    def _call(self, calling: Calling, body: str) -> Iterator[Delta]:
        found = calling.parse(body, self._tools)
        if found is None or not found[0] or found[0] not in self._tools:
            yield from self._text(f"{calling.open}{body}{calling.close}")
            return
        self._space = ""
        yield Delta("tool_name", found[0], self.calls)
        yield Delta("tool_arguments", found[1], self.calls)
        self.calls += 1
