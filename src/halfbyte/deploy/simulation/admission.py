"""Kueue's admission by quota: who is admitted, who waits, who is preempted. One resource, GPUs; one flavor a cohort.

As Kueue documents it (concepts: ClusterQueue, Cohort, Preemption): a queue has a nominal quota, may borrow what others
and the cohort leave unused, up to its borrowingLimit, and keeps back what its lendingLimit does not give away. A
workload that fits into its queue's nominal quota may reclaim what others borrowed; within a queue a higher priority
displaces a lower one; one that itself must borrow may displace lower priorities below a threshold.
"""

from collections.abc import Iterable, Iterator
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


@dataclass
class Cohort:
    """Queues that share. shared: the cohort's own quota."""

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
        queue = self.queues[workload.queue]
        if workload.gpus <= self.available(queue):
            self.admitted.append(workload)
            return []
        victims = self._victims(workload, queue)
        if victims is None:
            return None
        self.admitted = [one for one in self.admitted if one not in victims]
        self.admitted.append(workload)
        return victims

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
