"""What says how activation scales came about: beside the scales in their file, and in `halfbyte.json`."""

from typing import Any

from pydantic import Field

from halfbyte.evidence.record import Number, Record

CALIBRATION_KEY = "halfbyte"
"""Under which it stands in a file of scales; all other keys there are values."""


class Tokens(Record):
    """Of a source, or of a value of a label."""

    documents: int
    tokens: int


class DataUsed(Record):
    """Which tokens were used. sha256: of them all, in order."""

    documents: int
    tokens: int
    sha256: str


class DataReport(DataUsed):
    """And where they came from: by file, by label and value."""

    sources: dict[str, Tokens] = Field(default_factory=dict)
    labels: dict[str, dict[str, Tokens]] = Field(default_factory=dict)


class Uncovered(Record):
    """An expert that saw too few tokens."""

    layer: int
    expert: int
    tokens: int


class TokensSeen(Record):
    """Over a layer's experts."""

    least: int
    median: Number
    most: int


class LayerCoverage(Record):
    """histogram: experts by tokens seen. uncovered: how many saw too few."""

    layer: int
    tokens: TokensSeen
    histogram: dict[str, int]
    uncovered: int


class CoverageRecord(Record):
    """min_tokens: below it an expert counts as uncovered."""

    min_tokens: int
    experts: int
    uncovered: list[Uncovered]
    layers: list[LayerCoverage]


class CalibratedInput(Record):
    """Of one input. headroom: of the amax written, over the largest value seen. rules: what each would have done."""

    headroom: Number
    largest: dict[str, Number] = Field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Calibration(Record):
    """All but `amax` is missing where others wrote the file. model: whose activations, `source` or `rounded`.

    amax: the rule. sampling: options that chose the data. experts: by layer, statistics of every expert's inputs.
    """

    schema_: int | None = Field(default=None, alias="schema")
    halfbyte: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    model_type: str | None = None
    model: str = "source"
    amax: str | None = None
    data: DataReport | None = None
    held_out: dict[str, int] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    coverage: CoverageRecord | None = None
    experts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    inputs: dict[str, CalibratedInput] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
