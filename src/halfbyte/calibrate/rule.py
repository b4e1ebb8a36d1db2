"""From the values that a linear's input took to its amax: the largest, room above it, a percentile, or least error."""

from dataclasses import dataclass
from typing import Literal

from halfbyte.errors import UsageError, said

MSE_STEPS = tuple(2.0 ** (-k / 2) for k in range(11))
"""Of the largest value, tried by `mse`: down to 1/32 in half octaves. Larger than the largest gains nothing."""


@dataclass(frozen=True)
class Rule:
    """kind max: ModelOpt's, nothing clips that was seen. headroom: room above it, see `headroom.headroom_scale`.

    percentile: of all |x|. mse: least squared error of NVFP4 rounding.
    """

    kind: Literal["max", "headroom", "percentile", "mse"] = "max"
    percentile: float = 100.0

    @property
    def text(self) -> str:
        return f"percentile:{self.percentile:g}" if self.kind == "percentile" else self.kind


def parse_rule(text: str) -> Rule:
    """From `max`, `headroom`, `percentile:99.99` or `mse`. Raises UsageError."""
    plain = {rule.text: rule for rule in (Rule("max"), Rule("headroom"), Rule("mse"))}
    if text in plain:
        return plain[text]
    kind, _, number = text.partition(":")
    try:
        percentile = float(number)
    except ValueError:
        percentile = -1.0
    if kind != "percentile" or not 0 < percentile <= 100:
        known = "max, headroom, percentile:P with P above 0 and at most 100, or mse"
        raise UsageError(said("{amax} {text!r}: wanted {known}", text=text, known=known))
    return Rule("percentile", percentile)
