"""`verdict`: what a published table of means can tell, from item counts alone.

A card of means without per-item data bounds its differences by the unpaired binomial error, shrunk by an assumed
correlation between the two models' items. Repeats do not make items: they are recorded and change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from halfbyte.errors import DataError
from halfbyte.numbers.resolution import DETECT, NOT_EXCLUDED, Z_TWO_SIDED, unpaired_error
from halfbyte.recipes.reading import Table, WrittenFile

Judgement = Literal["none-resolvable", "drop", "gain", "mixed"]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]


class PublishedSuite(Table):
    """One row of the table. baseline, candidate: means in percent. n: items."""

    name: str = Field(min_length=1, max_length=200)
    n: Count
    baseline: Percent
    candidate: Percent
    repeats: Count | None = None


class Card(WrittenFile):
    """correlation: between the two models' items; 0 takes them for unpaired."""

    what: ClassVar = "card"
    plural: ClassVar = "cards"
    folder: ClassVar = "cards"
    error: ClassVar = DataError

    correlation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)] = 0
    suites: tuple[PublishedSuite, ...] = Field(min_length=1)

    @field_validator("suites")
    @classmethod
    def _named_once(cls, suites: tuple[PublishedSuite, ...]) -> tuple[PublishedSuite, ...]:
        names = [suite.name for suite in suites]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"suite {name!r} is there twice")
        return suites


@dataclass(frozen=True)
class Resolution:
    """One difference, in points. z: difference in standard errors. smallest_detectable: at 80 % power. ruled_out: the
    largest drop that is not excluded at 5 %, 0 where none is left."""

    name: str
    n: int
    difference: float
    standard_error: float
    z: float
    resolvable: bool
    smallest_detectable: float
    ruled_out: float

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Verdict:
    suites: tuple[Resolution, ...]
    verdict: Judgement

    def as_json(self) -> dict[str, Any]:
        return {"suites": [suite.as_json() for suite in self.suites], "verdict": self.verdict}


def verdict(card: str | Path | Card) -> Verdict:
    """Judge a published table. Raises DataError for one that cannot be."""
    read = card if isinstance(card, Card) else Card.from_file(card)
    suites = tuple(resolution(suite, read.correlation) for suite in read.suites)
    return Verdict(suites, judgement(suites))


def resolution(suite: PublishedSuite, correlation: float) -> Resolution:
    """One row: its difference beside its error."""
    difference = suite.candidate - suite.baseline
    error = 100 * unpaired_error(suite.baseline / 100, suite.candidate / 100, suite.n, correlation)
    z = difference / error
    return Resolution(
        name=suite.name,
        n=suite.n,
        difference=difference,
        standard_error=error,
        z=z,
        resolvable=abs(z) > Z_TWO_SIDED,
        smallest_detectable=DETECT * error,
        ruled_out=max(0.0, NOT_EXCLUDED * error - difference),
    )


def judgement(suites: Sequence[Resolution]) -> Judgement:
    """Of all rows together."""
    drops = any(suite.resolvable and suite.difference < 0 for suite in suites)
    gains = any(suite.resolvable and suite.difference > 0 for suite in suites)
    if drops and gains:
        return "mixed"
    return "drop" if drops else "gain" if gains else "none-resolvable"
