"""What `compare` can be asked for; every default stands here alone. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import UsageError, said


@dataclass(frozen=True)
class CompareOptions:
    """data, tokens, max_length, seed: see `data.documents.load`. slice: fields of the data to break the figures down
    by. recall: lengths of needle probes such as `1k,4k`; probes: how many of each length and language. a4_sim: measure
    a second candidate too, the same checkpoint with its activations rounded to four bits as on Blackwell.
    device: `cpu` or `cuda`, by default what there is. memory_budget: resident bytes. work: folder for spilled rows;
    after a kill the same run goes on in it. save_reference: file to keep the candidate's answers at some hundred
    positions in, for `probe`.

    Raises UsageError for what cannot be.
    """

    data: Sequence[str] = ()
    slice: Sequence[str] = ()
    recall: str | None = None
    probes: int = 8
    a4_sim: bool = False
    tokens: int | None = None
    max_length: int | None = None
    seed: int = 0
    device: str | None = None
    memory_budget: int | None = None
    work: str | Path | None = None
    save_reference: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.data and self.recall is None:
            raise UsageError("nothing to compare on", hint=said("give {data} FILE, or {recall} 1k,4k"))
        if self.save_reference is not None and not self.data:
            raise UsageError(said("{save_reference} needs {data}"))
        if self.slice and not self.data:
            raise UsageError(said("{slice} needs {data}"))
        if self.probes < 1:
            raise UsageError(said("{probes} {value}: wanted at least 1", value=self.probes))
