"""What `search` can be asked for; every default stands here alone. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import UsageError, said


@dataclass(frozen=True)
class SearchOptions:
    """budget_gb, bits: the size, in 10^9 bytes or bits per parameter of the whole model; one of them. output: file for
    the recipe; must not exist. data and sampling: see `data.documents.load`. device: `cpu` or `cuda`, by default what
    there is. memory_budget: resident bytes. work: folder for temporary files.

    Raises UsageError for what cannot be.
    """

    data: Sequence[str] = ()
    budget_gb: float | None = None
    bits: float | None = None
    output: str | Path | None = None
    tokens: int | None = None
    max_length: int | None = None
    seed: int = 0
    device: str | None = None
    memory_budget: int | None = None
    work: str | Path | None = None

    def __post_init__(self) -> None:
        self.budget_bytes(1)

    def budget_bytes(self, parameters: int) -> int:
        """Bytes of the checkpoint that are allowed. Raises UsageError unless exactly one, positive, is given."""
        if (self.budget_gb is None) == (self.bits is None):
            raise UsageError(said("give {budget_gb} or {bits}, one of them"))
        size = self.budget_gb * 1e9 if self.budget_gb is not None else (self.bits or 0) * parameters / 8
        if not 0 < size < float("inf"):
            value = self.budget_gb if self.bits is None else self.bits
            raise UsageError(said("{budget_gb} or {bits} {value}: wanted a number above 0", value=value))
        return int(size)
