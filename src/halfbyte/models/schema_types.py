"""Values of tool arguments that a model wrote as text, typed by the tool's JSON Schema."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from halfbyte.text import json_of

_PYTHON = {"True": True, "False": False, "None": None}
MOST_DEPTH = 20
"""Of references that lead to references."""


def typed(text: str, schema: Any, root: Any = None) -> Any:
    """A string where the schema wants one, verbatim; else JSON, with Python's True, False and None, where it is of a
    type that the schema allows; else the text. Without a schema: JSON if it is any, else the text."""
    types = set(_types(schema, root if root is not None else schema))
    if types == {"string"}:
        return text
    parsed, is_json = _parsed(text)
    if not types:
        return parsed if is_json and not isinstance(parsed, str) else text
    if is_json and _is_one(parsed, types - {"string"}):
        return parsed
    if is_json and isinstance(parsed, str) and "string" not in types:
        inner, inner_is_json = _parsed(parsed)
        if inner_is_json and _is_one(inner, types):
            return inner
    return text


def _parsed(text: str) -> tuple[Any, bool]:
    stripped = text.strip()
    if stripped in _PYTHON:
        return _PYTHON[stripped], True
    try:
        return json_of(stripped), True
    except ValueError:
        pass
    if stripped[:1] in ("{", "["):  # a Python literal, with single quotes
        try:
            return ast.literal_eval(stripped), True
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return None, False


def _types(schema: Any, root: Any, depth: int = 0) -> Iterator[str]:
    if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from _types(_resolved(reference, root), root, depth + 1)
    stated = schema.get("type")
    yield from [stated] if isinstance(stated, str) else [one for one in stated or () if isinstance(one, str)]
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key) or ():
            yield from _types(one, root, depth + 1)
    if stated is None and isinstance(values := schema.get("enum"), list):
        yield from (name for value in values for name in _NAMES if _is_one(value, {name}))


def _resolved(reference: str, root: Any) -> Any:
    found = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


_NAMES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}


def _is_one(value: Any, types: set[str]) -> bool:
    for name in types:
        if isinstance(value, bool) and name in ("integer", "number"):
            continue
        if name == "integer" and isinstance(value, float) and value.is_integer():
            return True
        if isinstance(value, _NAMES.get(name, ())):
            return True
    return False
