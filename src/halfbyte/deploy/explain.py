"""Why a replica would wait, and where it would run: Kueue's own arithmetic over the deployment's quotas, replica by
replica, flavor by flavor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from halfbyte.deploy.facts import Served
from halfbyte.deploy.kueue import cohorts, owned
from halfbyte.deploy.platform import Platform, Pool
from halfbyte.deploy.simulation.admission import Cohort, Flavors, Workload
from halfbyte.deploy.simulation.queues import queue_of


@dataclass(frozen=True)
class Step:
    """One replica of a model. flavor: where it would run. own, borrowed: GPUs of its quota there, and beyond it. waits:
    why, None if it is admitted."""

    model: str
    replica: int
    flavor: str | None
    own: int
    borrowed: int
    waits: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "replica": self.replica,
            "flavor": self.flavor,
            "own_gpus": self.own,
            "borrowed_gpus": self.borrowed,
            "waits": self.waits,
        }


def explain(platform: Platform, served: Sequence[Served]) -> Iterator[Step]:
    """Every replica up to one more than the autoscaler asks for, with the others of its cohort at their floors."""
    for one in served:
        yield from _steps(one, served, cohorts(platform.pools, served))


def _steps(one: Served, served: Sequence[Served], cohort: dict[str, str]) -> Iterator[Step]:
    there = {pool.name: Cohort.of([queue_of(one, pool)], pool.gpus - owned(pool, served)) for pool in one.pools}
    flavors = Flavors(there, {one.queue: tuple(there)})
    for replica in range(1, one.max_replicas + 2):
        before = {name: at.used(one.queue) for name, at in there.items()}
        admitted = flavors.admit(Workload(str(replica), one.queue, one.gpus, one.model.priority, replica))
        if admitted is not None:
            nominal = there[admitted.flavor].queues[one.queue].nominal
            own = max(0, min(one.gpus, nominal - before[admitted.flavor]))
            yield Step(one.name, replica, admitted.flavor, own, one.gpus - own, None)
            continue
        why = "; ".join(_short(one, pool, there[pool.name], served, cohort[pool.name]) for pool in one.pools)
        yield Step(one.name, replica, None, 0, one.gpus, why)


def _short(one: Served, pool: Pool, there: Cohort, served: Sequence[Served], cohort: str) -> str:
    """Why a flavor has no room for another replica."""
    queue = there.queues[one.queue]
    borrowed, limit = there.used(one.queue) + one.gpus - queue.nominal, queue.borrowing or 0
    if borrowed > there.shared:
        return (
            f"cohort {cohort}: {borrowed - there.shared} GPUs of flavor {pool.name} short: {pool.gpus} in the pool, "
            f"{owned(pool, served)} owned by models, {there.shared} to borrow, {borrowed} wanted"
        )
    return f"ClusterQueue {one.queue}: borrowingLimit {limit} of flavor {pool.name}, {borrowed - limit} GPUs short"
