"""What rounding depends on beside weights and data. What was tried instead: docs/rounding.md."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """damping: share of the Hessian's mean diagonal that is added to it. prior_tokens: weight of the layer-wide prior,
    as a number of tokens: an expert that saw n tokens keeps n / (n + prior_tokens) of its own Hessian. sample_tokens:
    of the layer, from which the prior is made. headroom: of weight_scale_2 over amax / 2688. sweeps: of block
    coordinate descent after the first pass. held_out: every so many-th document is kept for measuring the error.
    """

    damping: float = 0.01
    prior_tokens: int = 64
    sample_tokens: int = 4096
    headroom: float = 1.0
    sweeps: int = 2
    held_out: int = 32

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
