"""What rounding depends on beside weights and data. What was tried instead: docs/rounding.md."""

from dataclasses import asdict, dataclass
from typing import Any

from halfbyte.formats.modelopt import WITH_ACTIVATIONS, Algorithm
from halfbyte.quantize.options import OnData


@dataclass(frozen=True)
class Settings:
    """damping: share of the Hessian's mean diagonal that is added to it; damping_by_columns: more of it where tokens
    are few, times columns over tokens. correction: of down_proj (`correction.py`): its ridge over the mean diagonal,
    times columns over tokens. four_bit_share: share of the cost that is measured on inputs rounded to four bits.
    certain: what a token counts whose continuation is certain, to which 1 is added on average (`openness.py`).
    prior_tokens: weight of the layer-wide prior, as a number of tokens: an expert that saw n keeps
    n / (n + prior_tokens) of its own Hessian. sample_tokens: of the layer, from which the prior is made. headroom: of
    weight_scale_2 over amax / 2688. sweeps: of block coordinate descent after the first pass. held_out: every so
    many-th document is kept for measuring the error. compensate: round for the error that is left over from columns
    before; if not, each column counts by its inputs' energy alone: a weighted sweep.
    """

    damping: float = 0.1
    damping_by_columns: float = 4.0
    correction: float = 70.0
    four_bit_share: float = 0.25
    certain: float = 0.3
    prior_tokens: int = 64
    sample_tokens: int = 4096
    headroom: float = 1.0
    sweeps: int = 2
    held_out: int = 32
    compensate: bool = True

    @classmethod
    def of(cls, rounding: OnData, algorithm: Algorithm) -> "Settings":
        """Engines see inputs in sixteen bits under a weight-only algorithm."""
        if rounding == "weighted-sweep":
            return cls(four_bit_share=0.0, sweeps=0, compensate=False)
        return cls() if algorithm == WITH_ACTIVATIONS else cls(four_bit_share=0.0)

    @property
    def method(self) -> OnData:
        return "gptq" if self.compensate else "weighted-sweep"

    def damping_for(self, columns: int, tokens: int) -> float:
        """For a matrix with so many columns, of an expert that saw so many tokens."""
        return self.damping + self.damping_by_columns * columns / max(1, tokens)

    def correction_for(self, columns: int, tokens: int) -> float:
        return self.correction * columns / max(1, tokens)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
