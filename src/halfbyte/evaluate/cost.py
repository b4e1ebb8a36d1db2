"""GPU hours and money of a run, from a plan."""

from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import UsageError
from halfbyte.evidence.plan import PlanDocument


@dataclass(frozen=True)
class PlannedSpeed:
    """requests_per_s: over all GPUs, at the plan's lengths. output_tokens: of one answer there."""

    gpus: int
    requests_per_s: float
    output_tokens: int | None
    usd_per_gpu_hour: float | None

    def gpu_hours(self, answers: int) -> float:
        return self.gpus * answers / self.requests_per_s / 3600

    def usd(self, answers: int) -> float | None:
        return None if self.usd_per_gpu_hour is None else self.gpu_hours(answers) * self.usd_per_gpu_hour


def read_speed(path: Path) -> PlannedSpeed:
    """From a plan.json. Raises UsageError for one without a speed: a plan that does not fit has none."""
    plan = PlanDocument.read(path)
    speed, cost = plan.throughput, plan.cost
    if not speed.requests_per_s:
        raise UsageError(f"{path}: the plan has no throughput", hint="plan a server that fits")
    price = cost.price_per_gpu_hour
    return PlannedSpeed(
        gpus=plan.deployment.gpus,
        requests_per_s=float(speed.requests_per_s),
        output_tokens=speed.output_tokens,
        usd_per_gpu_hour=None if price is None else float(price),
    )
