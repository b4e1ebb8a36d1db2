"""What is measured of one packed linear. Rules import it at every depth; numpy comes with those who measure."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from halfbyte.checkpoint.inventory import Entry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def _no_codes() -> "npt.NDArray[np.int64]":
    import numpy as np

    return np.zeros(0, np.int64)


@dataclass
class TensorStatistics:
    """One packed linear. Counts are of block scales; from `codes` on, None or empty unless the codes were read.

    largest: the largest scale byte. codes: histogram over the 16 codes. zero_blocks: all codes zero. lost_blocks:
    codes that are not, under a scale of zero. source_error: ‖w - decoded‖ / ‖w‖ against the source.
    """

    entry: Entry
    blocks: int = 0
    nan: int = 0
    negative: int = 0
    zero: int = 0
    smallest: int = 0
    saturated: int = 0
    largest: int = 0
    scale_2: float = 0.0
    input_scale: float | None = None
    codes: "npt.NDArray[np.int64]" = field(default_factory=_no_codes)
    zero_blocks: int = 0
    lost_blocks: int = 0
    source_error: float | None = None

    @property
    def module(self) -> str:
        return self.entry.role.module
