"""One line of the sum: a name, how many bytes, when, by which formula, and who says so."""

from dataclasses import dataclass
from typing import Any

from halfbyte.engines.server import GIB

LOAD, PREFILL, DECODE, CAPTURE = "load", "prefill", "decode", "graph capture"
PHASES = (LOAD, PREFILL, DECODE, CAPTURE)
ALWAYS = PHASES
SERVING = (PREFILL, DECODE, CAPTURE)


@dataclass(frozen=True)
class Term:
    """bytes on one GPU during `phases`. formula: with its numbers put in. shrink: what would make it smaller.

    profiled: whether vLLM's dummy forward sees it (that forward skips attention kernels).
    """

    name: str
    phases: tuple[str, ...]
    bytes: float
    formula: str
    source: str
    shrink: str = ""
    profiled: bool = True

    @property
    def gib(self) -> float:
        return self.bytes / GIB

    @property
    def phase(self) -> str:
        names = {ALWAYS: "all", SERVING: "serving"}
        return names.get(self.phases, " + ".join(phase for phase in PHASES if phase in self.phases))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "phase": self.phase,
            "gib": round(self.gib, 4),
            "formula": self.formula,
            "source": self.source,
        }


def phase_bytes(terms: list[Term], phase: str) -> float:
    """All bytes that are live in a phase."""
    return sum(term.bytes for term in terms if phase in term.phases)
