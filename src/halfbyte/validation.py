"""What is wrong with a document: the first field at fault, what was seen there, and the word that was meant.

Pydantic finds the fault; this says it in one line, for whatever error its reader raises. No file is read here.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

SHOWN = 80
"""Characters of a value that a message repeats."""


class Fault(NamedTuple):
    """field: where, keys and positions joined by dots. seen: the value, or the unknown key. known: what it can be."""

    field: str
    problem: str
    seen: str
    known: tuple[str, ...]
    unknown: bool
    """The fault is a key, so all known ones are worth naming."""

    @property
    def message(self) -> str:
        return f"{self.field}: {self.problem} ({self.seen[:SHOWN]!r})"

    @property
    def hint(self) -> str | None:
        near = nearest(self.seen, self.known)
        return near or (f"known: {', '.join(self.known)}" if self.unknown else None)


def first_fault(error: ValidationError, model: type[BaseModel]) -> Fault:
    """The first thing wrong with a document that is no `model`."""
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    if first["type"] == "missing":  # a key that is misspelt is missing too, and says more
        beside = [one for one in found if one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1]]
        first = beside[0] if beside else first
    place = first["loc"]
    field = ".".join(_shown(piece) for piece in place if piece != "[key]")
    if first["type"] == "extra_forbidden":
        return Fault(field, "unknown setting", str(place[-1]), _words(_kind_at(model, place[:-1])), True)
    kind = _kind_at(model, place)
    if "[key]" in place:
        return Fault(field, f"unknown {_name(kind)}", str(first["input"]), _words(kind), True)
    return Fault(field, first["msg"].removeprefix("Value error, "), str(first["input"]), _words(kind), False)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """`did you mean ...?`, if a known word is near."""
    near = get_close_matches(word[:SHOWN], known, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _shown(piece: int | str) -> str:
    """A key of a hostile document, safe to print."""
    text = str(piece)[:SHOWN]
    return text if text.isprintable() else ascii(text)


def _kind_at(kind: Any, place: Sequence[int | str]) -> Any:
    """The declared type at a place of a document of type `kind`; None where none is declared."""
    for position, piece in enumerate(place):
        if piece == "[key]":
            continue
        key_itself = place[position + 1 : position + 2] == ("[key]",)
        kind = next((inner for one in _alternatives(kind) if (inner := _inside(one, piece, key_itself))), None)
    return kind


def _inside(kind: Any, piece: int | str, key_itself: bool) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return next((f.annotation for name, f in kind.model_fields.items() if piece in (name, f.alias)), None)
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[0 if key_itself else 1]
    return arguments[0] if get_origin(kind) in (list, tuple) else None


def _alternatives(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _alternatives(one)
    else:
        yield kind


def _words(kind: Any) -> tuple[str, ...]:
    """What can stand at a place: keys of a table, or the values of a closed list."""
    found: list[str] = []
    for one in _alternatives(kind):
        if get_origin(one) is Literal:
            found += map(str, get_args(one))
        elif isinstance(one, type) and issubclass(one, Enum):
            found += [str(member.value) for member in one]
        elif isinstance(one, type) and issubclass(one, BaseModel):
            found += [field.alias or name for name, field in one.model_fields.items()]
    return tuple(found)


def _name(kind: Any) -> str:
    return kind.__name__.lower() if isinstance(kind, type) and issubclass(kind, Enum) else "key"
