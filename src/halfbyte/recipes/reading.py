"""Files that people write, recipes and policies alike: YAML, typed, and an unknown word gets the nearest known one."""

import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from halfbyte.disk import read_text
from halfbyte.errors import HalfbyteError
from halfbyte.validation import first_fault, nearest

LIMIT_BYTES = 1_000_000


class Table(BaseModel):
    """A table of such a file: whatever it does not declare is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class WrittenFile(Table):
    """A whole file. what, plural: the kind in words. error: raised for whatever is wrong with one. folder: of those
    that come with Halfbyte."""

    what: ClassVar[str]
    plural: ClassVar[str]
    folder: ClassVar[str]
    error: ClassVar[type[HalfbyteError]]

    @classmethod
    def shipped(cls) -> dict[str, Traversable]:
        """Name -> file of those that come with Halfbyte."""
        folder = resources.files("halfbyte.recipes") / cls.folder
        return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}

    @classmethod
    def named(cls, name_or_file: str | Path) -> Self:
        """A shipped one by name, or a file by path. Raises `error` with a suggestion."""
        shipped, name = cls.shipped(), str(name_or_file)
        text = shipped[name].read_text("utf-8") if name in shipped else cls._text(name, shipped)
        return cls.parsed(text, name)

    @classmethod
    def from_file(cls, file: str | Path) -> Self:
        """A file by path, where none is shipped. Raises `error`."""
        return cls.parsed(cls._text(str(file), {}), str(file))

    @classmethod
    def parsed(cls, text: str, where: str) -> Self:
        """From YAML (or JSON) text. Raises `error` naming the first thing wrong. where: for the message."""
        try:
            document = yaml.safe_load(text)
        except Exception as error:  # PyYAML's constructors let whatever int(), float() and their like raise pass
            raise cls.error(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
        if not isinstance(document, dict):
            raise cls.error(f"{where}: a {cls.what} is a YAML mapping")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            fault = first_fault(error, cls)
            raise cls.error(f"{where}: {fault.message}", hint=fault.hint) from None

    @classmethod
    def _text(cls, name: str, shipped: Mapping[str, Traversable]) -> str:
        if not os.path.lexists(name) or os.path.isdir(name):  # no OSError for a name that cannot be
            listed = f"shipped {cls.plural}: {', '.join(sorted(shipped))}" if shipped else None
            hint = nearest(name, list(shipped)) or listed
            raise cls.error(f"no {cls.what} and no file is called {name[:200]!r}", hint=hint)
        return read_text(Path(name), LIMIT_BYTES, cls.error)
