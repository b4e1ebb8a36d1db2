"""What a page is made of: sections of words, figures and tables. Every string may come from a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """rows: as they are shown. text: how many columns from the left are words; the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: int = 1


@dataclass(frozen=True)
class Figure:
    """name: of letters and hyphens, alone on its page. chart: an altair chart. says: what is seen, in words.

    tables: the numbers behind it.
    """

    name: str
    chart: Any
    says: str
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """missing: what to run, where there is no evidence yet; nothing else is shown then."""

    title: str
    lines: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    missing: str | None = None


@dataclass(frozen=True)
class Page:
    """facts: name and value, shown first."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
