"""How large the blocks of a linear's input are: counts by block amax, exact to add up in any order."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

SHIFT = 19
"""Bits of a float32 magnitude that its bin ignores. The 4 of its mantissa that are left give 16 bins an octave."""
BINS = (0x7F800000 >> SHIFT) + 1
EDGES = (np.arange(BINS, dtype=np.uint32) << SHIFT).view(np.float32)
"""Bin i holds EDGES[i - 1] < amax <= EDGES[i]; bin 0 the blocks of zeros."""
TOKEN = 1 << 30
"""Weight of a whole token. Weights are whole numbers, so that sums do not depend on their order."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """counts: blocks by bin, int64 [BINS]. weight: of their shares of their token's sum of squares, in 1 / TOKEN.

    largest: of all amax. A token weighs the same however large it is: the sum of squares over a layer's input is that
    of a few outlier tokens, and would not notice if all others vanished.
    """

    counts: Counts
    weight: Counts
    largest: float

    @classmethod
    def empty(cls) -> "Histogram":
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), 0.0)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Exactly what one pass over both parts would have gathered."""
        return Histogram(self.counts + other.counts, self.weight + other.weight, max(self.largest, other.largest))

    @property
    def blocks(self) -> int:
        """That are not all zeros."""
        return int(self.counts[1:].sum())

    def up_to(self, limit: float) -> tuple[float, float]:
        """Share of the blocks with amax <= limit, and of their weight, for a histogram that has blocks.

        The bin that holds `limit` counts as a whole, so both are exact if `limit` is an edge, and else too large.
        """
        stop = int(np.searchsorted(EDGES, _as_amax(limit), "left")) + 1
        counts, weight = (int(values[1:stop].sum()) for values in (self.counts, self.weight))
        return counts / self.blocks, weight / int(self.weight.sum())

    def above(self, limit: float) -> float:
        """Share of the blocks with amax > limit; exact or too large, as `up_to`, but 0 where none is."""
        start = int(np.searchsorted(EDGES, _as_amax(limit), "right"))
        return int(self.counts[start:].sum()) / self.blocks if self.largest > _as_amax(limit) else 0.0

    def as_json(self) -> dict[str, Any]:
        """Bins from the first to the last that is not empty, as text: hundreds of numbers on one line."""
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        lists = {name: " ".join(map(str, values[first:last])) for name, values in self._lists().items()}
        return {"first_bin": first, **lists, "largest": self.largest}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Histogram":
        result = replace(cls.empty(), largest=float(document["largest"]))
        for name, values in result._lists().items():
            given = [int(value) for value in document[name].split()]
            values[document["first_bin"] : document["first_bin"] + len(given)] = given
        return result

    def _lists(self) -> dict[str, Counts]:
        return {"blocks": self.counts, "energy": self.weight}


def _as_amax(limit: float) -> np.float32:
    """Block amax are float32: 2688 * (amax / 2688) has to be amax again."""
    with np.errstate(over="ignore"):
        return np.float32(limit)
