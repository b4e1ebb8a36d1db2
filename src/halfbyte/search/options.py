"""What `search` can be asked for; every default stands here alone. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import UsageError, said

MOST_VERIFIED = 64


@dataclass(frozen=True)
class SearchOptions:
    """gb, bits, fit: the size, one of them. gb: in 10^9 bytes. bits: per parameter of the whole model. fit: a machine,
    for instance `b200x8`, that is to hold `concurrency` sequences of `context` tokens.

    verify: points of the front that are measured too. also: formats beside the offered ones whose damage is measured
    for comparison. output: file for the recipe; must not exist. data and sampling: see `data.documents.load`. device:
    `cpu` or `cuda`, by default what there is. memory_budget: resident bytes. work: where a killed run goes on.

    Raises UsageError for what cannot be.
    """

    data: Sequence[str] = ()
    gb: float | None = None
    bits: float | None = None
    fit: str | None = None
    context: int | None = None
    concurrency: int | None = None
    verify: int = 0
    also: Sequence[str] = ()
    output: str | Path | None = None
    tokens: int | None = None
    max_length: int | None = None
    seed: int = 0
    device: str | None = None
    memory_budget: int | None = None
    work: str | Path | None = None

    def __post_init__(self) -> None:
        given = [budget for budget in (self.gb, self.bits, self.fit) if budget is not None]
        if len(given) != 1:
            raise UsageError(said("give {gb}, {bits} or {fit}, one of them"))
        if self.fit is None and (self.context is not None or self.concurrency is not None):
            raise UsageError(said("{context} and {concurrency} belong to {fit}"))
        if not 0 <= self.verify <= MOST_VERIFIED:
            raise UsageError(said("{verify} {value}: wanted 0 to {most}", value=self.verify, most=MOST_VERIFIED))
        self.budget_bytes(1)

    def budget_bytes(self, parameters: int) -> int | None:
        """Bytes of the checkpoint that are allowed, None where a machine says it. Raises UsageError."""
        if self.fit is not None:
            return None
        size = self.gb * 1e9 if self.gb is not None else (self.bits or 0) * parameters / 8
        if not 0 < size < float("inf"):
            value = self.gb if self.bits is None else self.bits
            raise UsageError(said("{gb} or {bits} {value}: wanted a number above 0", value=value))
        return int(size)
