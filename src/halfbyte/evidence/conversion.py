"""What `halfbyte convert` leaves in the evidence: the layouts, and scales that their inverse would not give back."""

from typing import TYPE_CHECKING

from pydantic import Field

from halfbyte.evidence.record import Record

if TYPE_CHECKING:
    import numpy as np


class OriginalScale(Record):
    """A float32 scale as the other layout stored it. bits: of the number, in hexadecimal."""

    bits: str = Field(pattern="^[0-9a-f]{8}$")
    shape: list[int]

    @classmethod
    def of(cls, value: "np.float32", shape: tuple[int, ...]) -> "OriginalScale":
        return cls(bits=f"{int(value.view('uint32')):08x}", shape=list(shape))

    @property
    def number(self) -> "np.float32":
        import numpy as np

        return np.float32(np.array([int(self.bits, 16)], np.uint32).view(np.float32)[0])


class Conversion(Record):
    """came_from, became: layouts. original_scales: by the name that the scale has in this checkpoint."""

    came_from: str
    became: str
    original_scales: dict[str, OriginalScale]
