"""Documents that Halfbyte writes and others of its commands read: typed, one reader, one atomic writer.

A document is written with the fields that were given, in the order in which its type declares them. What a type does
not declare, as a later version may have written it, is carried along and not looked at.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetPydanticSchema, ValidationError, WithJsonSchema
from pydantic_core import core_schema

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.writer import write_whole
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError, HalfbyteError
from halfbyte.text import json_text
from halfbyte.validation import first_fault

MOST = 2**1023
"""Of a whole number: what a double holds."""

_NUMBER = core_schema.union_schema(
    [core_schema.int_schema(ge=-MOST, le=MOST, strict=True), core_schema.float_schema(strict=True)]
)
Number = Annotated[
    float,
    GetPydanticSchema(
        lambda _kind, _handler: core_schema.custom_error_schema(
            _NUMBER, custom_error_type="number", custom_error_message="wanted a number"
        )
    ),
    WithJsonSchema({"type": "number"}),
]
"""A measured figure. 0 stays 0 and 0.0 stays 0.0, so that what is read is written again as it was. `compare` writes
Infinity where a double holds no more; no range is asked for here."""


class Record(BaseModel):
    """A part of a document. Strict: a number in quotes is no number."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", defer_build=True)

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_unset=True)

    def without(self, field: str) -> Self:
        """The same, but `field` is not written."""
        copied = self.model_copy(update={field: None})
        copied.model_fields_set.discard(field)
        return copied


class JsonDocument(Record):
    """A whole document. what: it in words. version: key and value that tell its layout. hint: how to get a sound one.

    error: raised for whatever is wrong with one.
    """

    what: ClassVar[str]
    version: ClassVar[tuple[str, int]]
    hint: ClassVar[str]
    error: ClassVar[type[HalfbyteError]] = CheckpointError
    indent: ClassVar[int] = 1
    ascii: ClassVar[bool] = False

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """From a file. Raises `error` naming it and the first field at fault."""
        path = Path(path)
        if is_missing(path):
            raise cls.error(f"{path}: missing", hint=cls.hint)
        content = read_regular(path, JSON_LIMIT_BYTES, cls.error)
        try:
            document = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise cls.error(f"{path}: cannot be read as {cls.what}: {str(error)[:200]}") from None
        return cls.of(document, str(path))

    @classmethod
    def of(cls, document: Any, where: str) -> Self:
        """From parsed JSON. Raises `error` naming the first field at fault. where: for the message."""
        if not isinstance(document, Mapping):
            raise cls.error(f"{where}: is not a JSON object, so not {cls.what}", hint=cls.hint)
        key, version = cls.version
        if document.get(key) != version:
            stated = str(document.get(key))[:40]
            raise cls.error(f"{where}: {key} {stated}, wanted {version}", hint=cls.hint)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise cls.error(f"{where}: {first_fault(error, cls).message}", hint=cls.hint) from None

    def to_bytes(self) -> bytes:
        return json_bytes(self.as_json(), indent=self.indent, ascii=self.ascii)

    def write(self, path: str | Path) -> None:
        """Complete or not at all. Raises OutputError."""
        write_whole(Path(path), self.to_bytes())


def json_bytes(document: Any, *, indent: int = 2, ascii: bool = False) -> bytes:
    return ((json.dumps(document, indent=indent) if ascii else json_text(document, indent)) + "\n").encode()
