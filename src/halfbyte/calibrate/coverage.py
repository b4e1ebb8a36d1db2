"""Which experts saw how many tokens: calibration is only as good as its thinnest expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

EDGES = (1, 16, 64, 256, 1024)
BUCKETS = ("0", "1-15", "16-63", "64-255", "256-1023", "1024+")


@dataclass(frozen=True)
class Coverage:
    """tokens: for each MoE layer, of each expert. uncovered: (layer, expert, tokens) of those below `min_tokens`."""

    min_tokens: int
    tokens: Mapping[int, Sequence[int]]

    @property
    def uncovered(self) -> list[tuple[int, int, int]]:
        return [
            (layer, expert, count)
            for layer, counts in self.tokens.items()
            for expert, count in enumerate(counts)
            if count < self.min_tokens
        ]

    def as_json(self) -> dict[str, Any]:
        """Experts below the bound, and for each layer a histogram of its experts by tokens seen."""
        uncovered = [{"layer": layer, "expert": expert, "tokens": count} for layer, expert, count in self.uncovered]
        layers = [
            {
                "layer": layer,
                "tokens": {"least": min(counts), "median": median(counts), "most": max(counts)},
                "histogram": dict(zip(BUCKETS, histogram(counts), strict=True)),
                "uncovered": sum(count < self.min_tokens for count in counts),
            }
            for layer, counts in self.tokens.items()
        ]
        experts = sum(len(counts) for counts in self.tokens.values())
        return {"min_tokens": self.min_tokens, "experts": experts, "uncovered": uncovered, "layers": layers}


def histogram(counts: Sequence[int]) -> list[int]:
    """How many experts fall into each of BUCKETS."""
    result = [0] * len(BUCKETS)
    for count in counts:
        result[sum(count >= edge for edge in EDGES)] += 1
    return result
