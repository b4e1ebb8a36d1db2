"""A day of traffic on a deployment: what the autoscaler asks for, what Kueue admits, what requests wait, what it costs.

In steps of the autoscaler's polling, requests as a stream: a replica works on as many at once as hold the plan's
objective, at the plan's rate; the rest waits. A replica that is admitted works after its cold start. Batch work takes
what is idle in the model's own pool, and gives it back when a replica asks. Where the model falls back, a replica works
at that pool's rate and costs its price, and nobody else is there. Fixed fleets get the same traffic.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from halfbyte.deploy.autoscaling import POLL_S, running_per_replica, stable_s, waiting_threshold
from halfbyte.deploy.facts import Served
from halfbyte.deploy.kueue import BATCH, BATCH_PRIORITY
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.simulation.admission import Cohort, Flavors, Queue, Workload
from halfbyte.deploy.simulation.queues import queue_of
from halfbyte.evidence.plan import PlanDocument

DAY_S = 86_400
PEAK_HOUR = 15.0
TROUGH = 0.25
"""Of the mean, at night; the peak is as far above it."""


@dataclass(frozen=True)
class Rate:
    """Of one replica, by the plan: requests that it works on at once, and that it ends a second; tokens of one."""

    concurrency: float
    requests_per_s: float
    tokens: float

    @classmethod
    def of(cls, plan: PlanDocument) -> "Rate":
        """Raises ValueError where the plan has no throughput."""
        found = plan.throughput
        replicas = max(1, plan.deployment.replicas)
        at = found.at_slo
        tokens = float((found.input_tokens or 0) + (found.output_tokens or 0))
        if at is not None and at.requests_per_s > 0:
            return cls(at.concurrency / replicas, at.requests_per_s / replicas, tokens)
        if found.requests_per_s and found.concurrency:
            return cls(found.concurrency / replicas, found.requests_per_s / replicas, tokens)
        raise ValueError("the plan has no throughput")


@dataclass
class Outcome:
    """in_time: share of requests that waited no longer than the objective. gpu_hours: of admitted replicas."""

    name: str
    in_time: float
    p99_wait_s: float
    gpu_hours: float
    usd: float
    peak_replicas: int
    gated_s: float
    preempted: int
    series: list[tuple[float, float, int, int, float]] = field(default_factory=list)
    """Hour, requests a second, replicas wished, replicas at work, seconds that a request waits."""

    def as_json(self) -> dict[str, Any]:
        return {
            "fleet": self.name,
            "in_time": round(self.in_time, 5),
            "p99_wait_s": round(self.p99_wait_s, 1),
            "gpu_hours": round(self.gpu_hours, 1),
            "usd": round(self.usd, 2),
            "peak_replicas": self.peak_replicas,
            "gated_s": round(self.gated_s),
            "batch_preempted": self.preempted,
        }


def diurnal(requests: float, at_s: float) -> float:
    """Requests a second: a sine over the day, highest in the afternoon, whose day has so many requests."""
    swing = 1 - TROUGH
    return requests / DAY_S * (1 + swing * math.cos(2 * math.pi * (at_s / 3600 - PEAK_HOUR) / 24))


def simulate(platform: Platform, one: Served, requests: float) -> list[Outcome]:
    """The autoscaled fleet first, then fixed ones: the least and the most replicas, and the smallest that serves as
    many in time as the autoscaled does. requests: of the day."""
    scaled = _run(platform, one, requests, None)
    fixed = [_run(platform, one, requests, count) for count in range(one.min_replicas, one.max_replicas + 1)]
    equal = next((fleet for fleet in fixed if fleet.in_time >= scaled.in_time), None)
    chosen = {fleet.name: fleet for fleet in (fixed[0], equal, fixed[-1]) if fleet is not None}
    return [scaled, *chosen.values()]


class _Fleet:
    """Replicas under Kueue beside batch work. ready: pool and moment from which each admitted one works there."""

    def __init__(self, platform: Platform, one: Served) -> None:
        self.one = one
        self.cohort = Cohort.of([queue_of(one, one.pool), Queue(BATCH, 0)], one.pool.gpus - one.floor)
        there = {one.pool.name: self.cohort} | {
            pool.name: Cohort.of([queue_of(one, pool)], pool.gpus) for pool in one.pools[1:]
        }
        self.flavors = Flavors(there, {one.queue: tuple(there)})
        self.ready: list[tuple[str, float]] = []
        self.preempted = self._made = 0

    def fill(self) -> None:
        """Batch work takes what nobody uses, in pieces of a node."""
        while True:
            self._made += 1
            piece = Workload(f"batch-{self._made}", BATCH, self.one.pool.gpus_per_node, BATCH_PRIORITY, self._made)
            if piece.gpus > self.cohort.available(self.cohort.queues[BATCH]) or self.cohort.admit(piece) is None:
                return

    def wish(self, replicas: int, now: float, cold_s: float) -> bool:
        """Whether any of them is gated."""
        while len(self.ready) < replicas:
            self._made += 1
            name = f"replica-{len(self.ready)}"
            admitted = self.flavors.admit(
                Workload(name, self.one.queue, self.one.gpus, self.one.model.priority, self._made)
            )
            if admitted is None:
                return True
            self.preempted += len(admitted.victims)
            self.ready.append((admitted.flavor, now + cold_s))
        while len(self.ready) > replicas:
            self.ready.pop()
            self.flavors.release(f"replica-{len(self.ready)}")
        return False


def _run(platform: Platform, one: Served, requests: float, fixed: int | None) -> Outcome:
    rates, fleet = {place.pool.name: Rate.of(place.plan) for place in one.places}, _Fleet(platform, one)
    price = {pool.name: pool.usd_per_gpu_hour for pool in one.pools}
    tokens = rates[one.pool.name].tokens
    wanted = fixed if fixed is not None else one.min_replicas
    fleet.wish(wanted, -one.cold_start_s, one.cold_start_s)
    fleet.fill()
    inside = gated = gpu_seconds = usd = 0.0
    asked, waits, series = (
        deque[tuple[float, int]](),
        list[tuple[float, float]](),
        list[tuple[float, float, int, int, float]](),
    )
    last_down, peak = 0.0, wanted
    for tick in range(DAY_S // POLL_S):
        now = float(tick * POLL_S)
        coming = diurnal(requests, now)
        at_work = [rates[flavor] for flavor, moment in fleet.ready if moment <= now]
        working, room = len(at_work), sum(rate.concurrency for rate in at_work)
        fastest = sum(rate.requests_per_s for rate in at_work)
        inside += coming * POLL_S
        running = min(inside, room)
        inside -= min(inside, running / room * fastest * POLL_S) if room else 0.0
        waiting = max(0.0, inside - room)
        wait = waiting / max(fastest, 1e-9)
        waits.append((wait, coming * POLL_S))
        if fixed is None:
            wish = _wished(platform, one, waiting * tokens, min(inside, room))
            asked.append((now, wish))
            while asked and asked[0][0] < now - stable_s(one):
                asked.popleft()
            held = max(number for _, number in asked)
            if wish > wanted and tick % 4 == 0:
                wanted += 1  # one at a time, each minute
            elif held < wanted and now - last_down >= min(1800, stable_s(one)):
                wanted, last_down = wanted - 1, now
        if fleet.wish(wanted, now, one.cold_start_s):
            gated += POLL_S
        fleet.fill()
        peak = max(peak, len(fleet.ready))
        gpu_seconds += len(fleet.ready) * one.gpus * POLL_S
        usd += sum(price[flavor] for flavor, _ in fleet.ready) * one.gpus * POLL_S / 3600
        series.append((now / 3600, coming, wanted, working, wait))
    name = f"{one.min_replicas} to {one.max_replicas}, scaled" if fixed is None else f"{fixed}, fixed"
    in_time, p99 = _waited(platform, waits)
    return Outcome(name, in_time, p99, gpu_seconds / 3600, usd, peak, gated, fleet.preempted, series)


def _wished(platform: Platform, one: Served, waiting_tokens: float, running: float) -> int:
    """As the Horizontal Pod Autoscaler computes it from averages: the most of what each trigger asks."""
    by_tokens = math.ceil(waiting_tokens / waiting_threshold(platform, one))
    by_running = math.ceil(running / running_per_replica(one))
    return min(one.max_replicas, max(one.min_replicas, by_tokens, by_running))


def _waited(platform: Platform, waits: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(share of requests in time, wait of all but one in a hundred), of waits and how many requests had each."""
    total = sum(weight for _, weight in waits)
    late = sum(weight for wait, weight in waits if wait > platform.objectives.queue_seconds)
    left, p99 = 0.01 * total, 0.0
    for wait, weight in sorted(waits, reverse=True):
        p99 = wait
        left -= weight
        if left < 0:
            break
    return 1 - late / total, p99
