"""A request that generates, read: who is asked, for how much, and what the upstream is sent for it."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from halfbyte.serve.door.dialects import Dialect
from halfbyte.serve.door.refusal import bad_request

MOST_TOKENS = (1 << 31) - 1
MOST_CHOICES = 128
CHOICES = ("n", "n_cmpl", "best_of")
"""Fields that multiply the output, as clients and engines spell them."""

UNWRITTEN = ("content", "text")
"""Names of fields that no template writes beside their values."""
OTHER_PART_TOKENS = 8192
"""The most that an image or another part of a message which is no text is taken to be."""
MESSAGE_TOKENS = 8
TEMPLATE_TOKENS = 16
"""What chat templates put around each message, and around all of them."""


@dataclass(frozen=True)
class Call:
    """model: None if not said. choices: of `n` and of several prompts together. max_tokens: of one choice.

    prompt_bound: no fewer tokens than the prompt has, for any tokenizer that makes at least a byte of each.
    repeated: whether a key stands twice somewhere, so that readers may differ in which counts.
    """

    dialect: Dialect
    body: bytes
    document: dict[str, Any]
    model: str | None
    stream: bool
    wants_usage: bool
    choices: int
    max_tokens: int | None
    prompt_bound: int
    repeated: bool


def read_call(dialect: Dialect, body: bytes) -> Call:
    """Raises Refusal for what is no request, or asks for nonsense."""
    document, repeated = _parse(body)
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise bad_request("model: wanted a string", "model")
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise bad_request("stream: wanted true or false", "stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_request("stream_options: wanted an object", "stream_options")
    if document.get("background"):
        raise bad_request("background: answers are given while the client waits", "background")
    lengths = [_count(document, name, MOST_TOKENS) for name in dialect.lengths]
    given = [length for length in lengths if length is not None]
    choices = max([_count(document, name, MOST_CHOICES) or 1 for name in CHOICES])
    prompts, bound = _prompt(document)
    return Call(
        dialect=dialect,
        body=body,
        document=document,
        model=model,
        stream=bool(stream),
        wants_usage=bool(options and options.get("include_usage")),
        choices=choices * prompts,
        max_tokens=max(given) if given else None,
        prompt_bound=bound,
        repeated=repeated,
    )


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises Refusal."""
    return _parse(body)[0]


def _parse(body: bytes) -> tuple[dict[str, Any], bool]:
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(found)
        repeated = repeated or len(made) != len(found)
        return made

    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=pairs, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise bad_request("the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {str(error)[:120]}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise bad_request("the body is not a JSON object", code="invalid_json")
    return document, repeated


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _count(document: dict[str, Any], name: str, most: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        shown = json.dumps(value)[:40] if not isinstance(value, int) or abs(value) < 10**40 else "a huge number"
        raise bad_request(f"{name}: {shown}, wanted a whole number from 1 to {most}", name)
    return value


def upstream_body(call: Call, model: str, max_tokens: int | None) -> bytes:
    """What the upstream is sent: the client's bytes, but for what the door has to say itself."""
    added: dict[str, Any] = {}
    if call.model is None:
        added["model"] = model
    if call.stream and call.dialect.asks_usage and not call.wants_usage:
        added["stream_options"] = {**(call.document.get("stream_options") or {}), "include_usage": True}
    if max_tokens is not None and call.max_tokens is None:
        added[call.dialect.lengths[0]] = max_tokens
    if not added and not call.repeated:
        return call.body
    if call.repeated or any(name in call.document for name in added):
        return json.dumps({**call.document, **added}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    start = call.body.index(b"{") + 1
    joint = b", " if call.document else b""
    return call.body[:start] + json.dumps(added).encode()[1:-1] + joint + call.body[start:]


def _prompt(document: dict[str, Any]) -> tuple[int, int]:
    """(how many prompts, the most tokens that all have together)."""
    prompts, bound = 1, TEMPLATE_TOKENS
    asked = document.get("prompt")
    if isinstance(asked, list) and asked and not isinstance(asked[0], int):
        prompts = len(asked)
        bound += sum(_of_prompt(one) for one in asked)
    elif asked is not None:
        bound += _of_prompt(asked)
    for name in ("messages", "input"):
        items = document.get(name)
        if isinstance(items, list):
            bound += sum(MESSAGE_TOKENS + _of_parts(item) for item in items)
        elif items is not None:
            bound += MESSAGE_TOKENS + _of_parts(items)
    for name in ("system", "instructions", "suffix"):
        if document.get(name) is not None:
            bound += MESSAGE_TOKENS + _of_parts(document[name])
    for name in ("tools", "functions", "documents", "response_format"):
        if document.get(name):
            bound += len(json.dumps(document[name], ensure_ascii=False).encode("utf-8", "replace")) + MESSAGE_TOKENS
    return prompts, bound


def _of_prompt(prompt: Any) -> int:
    """A string, or the numbers of tokens."""
    return len(prompt) if isinstance(prompt, list) else _of_parts(prompt)


def _of_parts(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, list):
        return sum(map(_of_parts, value))
    if isinstance(value, dict):
        kind = value.get("type")
        value = {name: item for name, item in value.items() if name not in ("type", "role")}
        if isinstance(kind, str) and ("image" in kind or "audio" in kind or "video" in kind or "file" in kind):
            return OTHER_PART_TOKENS
        return sum(_of_parts(item) + (0 if name in UNWRITTEN else len(name) + 4) for name, item in value.items())
    return 8


def text_of_prompt(document: dict[str, Any]) -> str | None:
    """All texts of a prompt, to be counted by an engine's tokenizer; None where it is given as token numbers."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            for name, item in value.items():
                if name not in ("type", "role", "id", "image_url", "input_audio"):
                    walk(item)

    asked = document.get("prompt")
    if isinstance(asked, list) and asked and not isinstance(asked[0], str):
        return None
    for name in ("prompt", "system", "instructions", "messages", "input"):
        walk(document.get(name))
    if document.get("tools"):
        found.append(json.dumps(document["tools"], ensure_ascii=False))
    return "\n".join(found)
