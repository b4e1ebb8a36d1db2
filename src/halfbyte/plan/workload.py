"""What is asked of a server: lengths, service level, money."""

from dataclasses import dataclass

from halfbyte.errors import UsageError


@dataclass(frozen=True)
class Workload:
    """What is asked of the server. Tokens per request; SLO in ms; prices in dollars; shares between 0 and 1.

    routing: how often each routed expert was chosen in a measurement, in any unit; None for uniform routing.
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
        for name in ("input_tokens", "output_tokens", "slo_ttft_ms", "slo_tpot_ms"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name.replace('_', ' ')} is {getattr(self, name):g}, wanted more than 0")
