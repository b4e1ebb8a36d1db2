"""`compare` and `evaluate` of `halfbyte.json`: what was measured of a checkpoint, of which shards, against which.

`halfbyte compare` writes `Compared`, `halfbyte evaluate` writes `Evaluated`.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from halfbyte.evidence.record import Number, Record


class Estimate(Record):
    """A mean and its 95 % interval; no interval with one document, nothing at all without tokens."""

    mean: Number | None = None
    low: Number | None = None
    high: Number | None = None

    def worst_high(self) -> float | None:
        """The end that counts where less is better; the mean where there is no interval."""
        return self.high if self.high is not None else self.mean

    def worst_low(self) -> float | None:
        return self.low if self.low is not None else self.mean


class OfTopTokens(Record):
    """Of the k likeliest tokens."""

    k: int | None = None


class Overlap(Estimate, OfTopTokens):
    """Share of the likeliest tokens that both models have."""


class PerplexityFigures(Record):
    """low, high: of the ratio candidate / base."""

    base: Number | None = None
    candidate: Number | None = None
    ratio: Number | None = None
    low: Number | None = None
    high: Number | None = None


class Figures(Record):
    """Of one set of tokens. kl: nats per token."""

    tokens: int | None = None
    documents: int | None = None
    kl: Estimate | None = None
    perplexity: PerplexityFigures | None = None
    top1_agreement: Estimate | None = None
    topk_overlap: Overlap | None = None


class Span(Record):
    """Positions in the context, `stop` not included."""

    start: int
    stop: int


class SpanFigures(Figures, Span):
    """Of the tokens at some positions."""


class LayerFigures(Record):
    """Where the two models part; null for layers without a router, or without an indexer of their own."""

    layer: int
    hidden_error: Number | None = None
    router_agreement: Number | None = None
    indexer_overlap: Number | None = None


class RecallAtDepth(Record):
    """Probes whose fact stands at one depth, from 0 (first) to 1 (last). difference: of log-probabilities, mean;
    recalled: share of the probes, by model."""

    depth: Number
    probes: int
    difference: Number
    recalled: dict[str, Number] = Field(default_factory=dict)


class Recall(Record):
    """Needle probes of one length (tokens) and language. depths: the same probes by where the fact stands."""

    length: int
    language: str
    probes: int | None = None
    log_probability: dict[str, Estimate] = Field(default_factory=dict)
    rank: dict[str, Number] = Field(default_factory=dict)
    recalled: dict[str, Estimate] = Field(default_factory=dict)
    depths: list[RecallAtDepth] = Field(default_factory=list)


class Measured(Figures):
    """One candidate over all data. slices: field of the data -> value -> figures."""

    slices: dict[str, dict[str, Figures]] = Field(default_factory=dict)
    positions: list[SpanFigures] = Field(default_factory=list)
    layers: list[LayerFigures] = Field(default_factory=list)
    recall: list[Recall] = Field(default_factory=list)

    @property
    def max_context(self) -> int:
        """The longest context measured, in tokens; 0 if none was."""
        return max([0, *(span.stop for span in self.positions), *(row.length for row in self.recall)])

    def names_covered(self) -> Iterator[str]:
        """What can be asked for as covered: a field, a value, `field=value`, a language of the probes."""
        yield from (row.language for row in self.recall)
        for field, values in self.slices.items():
            yield field
            for value, figures in values.items():
                if figures.tokens != 0:
                    yield value
                    yield f"{field}={value}"


class ComparisonResult(Measured):
    """a4_sim: of the same candidate with its activations in four bits."""

    a4_sim: Measured | None = None
    notes: list[str] = Field(default_factory=list)


class Compared(ComparisonResult):
    """base, candidate: `identity` of all shards of either. data_sha256, recall_sha256: of the tokens, null for none.

    `halfbyte compare` puts the figures into `result`; rows made by others have them beside the hashes.
    """

    base: str | None = None
    candidate: str
    data_sha256: str | None = None
    recall_sha256: str | None = None
    halfbyte: str | None = None
    result: ComparisonResult | None = None

    @property
    def figures(self) -> ComparisonResult:
        return self if self.result is None else self.result

    def repeats(self, other: "Compared") -> bool:
        """Whether both compared the same shards on the same tokens."""
        keys = ("base", "candidate", "data_sha256", "recall_sha256")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


class Evaluated(Record):
    """candidate: `identity` of its shards. verdict: PASS, FAIL, INCONCLUSIVE. slices: names covered.

    margin, difference, interval (90 %, two-sided): points. baseline: as the run names it. conditions: what was asked of
    whom and how, judge and seeds too. records_sha256: of the file with a record for each answer.
    """

    candidate: str
    suite: str | None = None
    verdict: str | None = None
    margin: Number | None = None
    n: int | None = None
    difference: Number | None = None
    interval: list[Number] | None = None
    baseline: str | None = None
    slices: list[str] = Field(default_factory=list)
    max_context: int = 0
    halfbyte: str | None = None
    conditions: dict[str, Any] | None = None
    records_sha256: str | None = None

    def names_covered(self) -> Iterator[str]:
        yield from self.slices

    def repeats(self, other: "Evaluated") -> bool:
        """Whether both are of the same shards, suite and baseline: the later one takes the earlier one's place."""
        return all(getattr(self, key) == getattr(other, key) for key in ("candidate", "suite", "baseline"))
