"""What is asked of a server: lengths, service level, money."""

from dataclasses import dataclass
from math import isfinite

from halfbyte.errors import UsageError

MOST_TOKENS = 1 << 24
MOST_MS = 1e9
MOST_DOLLARS = 1e6


@dataclass(frozen=True)
class Workload:
    """Tokens per request; SLO in ms; prices in dollars (per GPU-hour, and of an API per 1M output tokens).

    utilisation: share of the throughput that is used, over 0 to 1. reasoning_share: of the output that readers do not
    see, 0 to under 1. routing: how often each routed expert was chosen in a measurement, in any unit; None for uniform
    routing. Raises UsageError for what cannot be.
    """

    input_tokens: int = 8192
    output_tokens: int = 1024
    slo_ttft_ms: float = 5000.0
    slo_tpot_ms: float = 50.0
    price: float | None = None
    api_price: float | None = None
    utilisation: float = 0.5
    reasoning_share: float = 0.0
    routing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, most in (
            ("input_tokens", MOST_TOKENS),
            ("output_tokens", MOST_TOKENS),
            ("slo_ttft_ms", MOST_MS),
            ("slo_tpot_ms", MOST_MS),
            ("price", MOST_DOLLARS),
            ("api_price", MOST_DOLLARS),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:  # NaN fails too
                raise UsageError(f"{name.replace('_', ' ')} is {value:g}, wanted more than 0 and at most {most:g}")
        if not 0 < self.utilisation <= 1:
            raise UsageError(f"a utilisation of {self.utilisation:g}; wanted more than 0 and at most 1")
        if not 0 <= self.reasoning_share < 1:
            raise UsageError(f"a reasoning share of {self.reasoning_share:g}; wanted 0 or more and less than 1")
        counts = self.routing
        if counts is not None and (not all(isfinite(n) and n >= 0 for n in counts) or sum(counts) <= 0):
            raise UsageError("measured routing holds counts that are negative or not finite, or only zeros")
