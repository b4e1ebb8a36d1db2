"""Kueue's admission by quota: who is admitted, who waits, who is preempted, in which flavor. One resource, GPUs.

As Kueue documents it (concepts: ClusterQueue, Cohort, Preemption): a queue has a nominal quota, may borrow what others
and the cohort leave unused, up to its borrowingLimit, and keeps back what its lendingLimit does not give away. A
workload that fits into its queue's nominal quota may reclaim what others borrowed; within a queue a higher priority
displaces a lower one; one that itself must borrow may displace lower priorities below a threshold. Quota is counted by
flavor, so a cohort is one `Cohort` here for each of its flavors, and `Flavors` is the choice between them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Queue:
    """A ClusterQueue. borrowing, lending: limits, None for none. reclaim: reclaimWithinCohort. within: whether
    withinClusterQueue is LowerPriority. borrow_below: the maxPriorityThreshold of borrowWithinCohort's LowerPriority;
    None is Never."""

    name: str
    nominal: int
    borrowing: int | None = None
    lending: int | None = None
    reclaim: Literal["Never", "LowerPriority", "Any"] = "Never"
    within: bool = False
    borrow_below: int | None = None


@dataclass(frozen=True)
class Workload:
    """gpus: that it holds from admission to its end. order: of its creation."""

    name: str
    queue: str
    gpus: int
    priority: int = 0
    order: int = 0


@dataclass(frozen=True)
class Attempt:
    """How a workload could be admitted. victims: whom it displaces. borrows: whether its queue then borrows. reclaims:
    whether the victims are all of other queues."""

    victims: list[Workload]
    borrows: bool
    reclaims: bool

    @property
    def rank(self) -> tuple[int, bool]:
        """Kueue prefers the larger: room, then taking back, then displacing one's own; then not to borrow."""
        return (2 if not self.victims else int(self.reclaims)), not self.borrows


@dataclass
class Cohort:
    """Queues that share one flavor. shared: the cohort's own quota."""

    queues: dict[str, Queue]
    shared: int = 0
    admitted: list[Workload] = field(default_factory=list)

    @classmethod
    def of(cls, queues: Iterable[Queue], shared: int = 0) -> "Cohort":
        return cls({queue.name: queue for queue in queues}, shared)

    def used(self, queue: str) -> int:
        return sum(one.gpus for one in self.admitted if one.queue == queue)

    def kept(self, queue: Queue) -> int:
        """Of its nominal quota that nobody else may use."""
        return 0 if queue.lending is None else max(0, queue.nominal - queue.lending)

    def available(self, queue: Queue) -> int:
        """GPUs that a workload of the queue could have now."""
        own = max(0, queue.nominal - self.used(queue.name))
        free = self.shared + sum(
            max(0, other.nominal - self.kept(other)) - max(0, self.used(other.name) - self.kept(other))
            for other in self.queues.values()
        )
        kept_free = max(0, self.kept(queue) - self.used(queue.name))
        limit = (
            float("inf") if queue.borrowing is None else queue.borrowing - max(0, self.used(queue.name) - queue.nominal)
        )
        return int(min(max(0, free) + kept_free, own + limit))

    def borrows(self, queue: Queue) -> int:
        return max(0, self.used(queue.name) - queue.nominal)

    def admit(self, workload: Workload) -> list[Workload] | None:
        """Those preempted for it; None if it must wait."""
        found = self.attempt(workload)
        if found is None:
            return None
        self.take(workload, found)
        return found.victims

    def attempt(self, workload: Workload) -> Attempt | None:
        """How it could be admitted; None if it must wait. Nobody is displaced yet."""
        queue = self.queues[workload.queue]
        victims = [] if workload.gpus <= self.available(queue) else self._victims(workload, queue)
        if victims is None:
            return None
        kept = self.used(queue.name) - sum(one.gpus for one in victims if one.queue == queue.name)
        others = all(one.queue != queue.name for one in victims)
        return Attempt(victims, kept + workload.gpus > queue.nominal, others)

    def take(self, workload: Workload, attempt: Attempt) -> None:
        self.admitted = [one for one in self.admitted if one not in attempt.victims]
        self.admitted.append(workload)

    def _victims(self, workload: Workload, queue: Queue) -> list[Workload] | None:
        """The fewest that make room, borrowers of other queues first, lowest priority and newest first."""
        trial, chosen = Cohort(self.queues, self.shared, list(self.admitted)), list[Workload]()
        for victim in self._candidates(workload, queue):
            if victim.queue != queue.name and trial.borrows(self.queues[victim.queue]) <= 0:
                continue  # what is its own is not taken
            trial.admitted.remove(victim)
            chosen.append(victim)
            if workload.gpus <= trial.available(queue):
                return self._without_needless(trial, chosen, workload, queue)
        return None

    def _without_needless(
        self, trial: "Cohort", chosen: list[Workload], workload: Workload, queue: Queue
    ) -> list[Workload]:
        for victim in list(reversed(chosen)):
            trial.admitted.append(victim)
            if workload.gpus <= trial.available(queue):
                chosen.remove(victim)
            else:
                trial.admitted.remove(victim)
        return chosen

    def _candidates(self, workload: Workload, queue: Queue) -> Iterator[Workload]:
        within_nominal = self.used(queue.name) + workload.gpus <= queue.nominal
        others = [one for one in self.admitted if one.queue != queue.name and self.borrows(self.queues[one.queue]) > 0]
        if within_nominal and queue.reclaim != "Never":
            reclaimed = [one for one in others if queue.reclaim == "Any" or one.priority < workload.priority]
            yield from sorted(reclaimed, key=lambda one: (one.priority, -one.order))
        elif queue.borrow_below is not None:
            lower = [one for one in others if one.priority < workload.priority and one.priority <= queue.borrow_below]
            yield from sorted(lower, key=lambda one: (one.priority, -one.order))
        if queue.within:
            same = [one for one in self.admitted if one.queue == queue.name and one.priority < workload.priority]
            yield from sorted(same, key=lambda one: (one.priority, -one.order))

    def release(self, name: str) -> None:
        self.admitted = [one for one in self.admitted if one.name != name]


@dataclass(frozen=True)
class Admitted:
    """flavor: where. victims: those preempted for it."""

    flavor: str
    victims: list[Workload]


Policy = Literal["MayStopSearch", "TryNextFlavor"]


@dataclass
class Flavors:
    """A cohort of several flavors. order: of each queue. when_can_borrow, when_can_preempt: its flavorFungibility, with
    Kueue's defaults, which are also what we write.

    Kueue (concepts, ClusterQueue, FlavorFungibility; pkg/scheduler/flavorassigner, 0.19): it goes through a queue's
    flavors in order. It stops at the first with room and without borrowing, and at one where a policy says that it may;
    of all it looked at, otherwise, it takes the best, the first of equals. A flavor where nothing can be displaced is
    passed over.
    """

    cohorts: dict[str, Cohort]
    order: Mapping[str, tuple[str, ...]]
    when_can_borrow: Policy = "MayStopSearch"
    when_can_preempt: Policy = "TryNextFlavor"

    def admit(self, workload: Workload) -> Admitted | None:
        """None if it must wait."""
        best: tuple[str, Attempt] | None = None
        for flavor in self.order[workload.queue]:
            attempt = self.cohorts[flavor].attempt(workload)
            if attempt is None:
                continue
            if self._stops(attempt):
                best = flavor, attempt
                break
            if best is None or attempt.rank > best[1].rank:
                best = flavor, attempt
        if best is None:
            return None
        flavor, attempt = best
        self.cohorts[flavor].take(workload, attempt)
        return Admitted(flavor, attempt.victims)

    def _stops(self, attempt: Attempt) -> bool:
        if attempt.victims and self.when_can_preempt == "TryNextFlavor":
            return False
        return not (attempt.borrows and self.when_can_borrow == "TryNextFlavor")

    def release(self, name: str) -> None:
        for cohort in self.cohorts.values():
            cohort.release(name)
