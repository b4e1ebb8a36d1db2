"""One document: what everything that calibrates or compares works on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Document:
    """ids: int64 [T], T ≥ 1. source and row say where it came from (row from 1)."""

    ids: npt.NDArray[np.int64]
    labels: dict[str, str]
    source: str
    row: int
