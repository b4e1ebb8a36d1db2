"""Why a replica would wait: Kueue's own arithmetic over the deployment's quotas, replica by replica."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from halfbyte.deploy.facts import Served
from halfbyte.deploy.platform import Platform


@dataclass(frozen=True)
class Step:
    """One replica of a model. own, borrowed: GPUs of its quota, and beyond it. waits: why, None if it is admitted."""

    model: str
    replica: int
    own: int
    borrowed: int
    waits: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "replica": self.replica,
            "own_gpus": self.own,
            "borrowed_gpus": self.borrowed,
            "waits": self.waits,
        }


def explain(platform: Platform, served: Sequence[Served]) -> Iterator[Step]:
    """Every replica up to one more than the autoscaler asks for, with the others of its cohort at their floors."""
    for one in served:
        floors = sum(other.floor for other in served if other.pool.name == one.pool.name)
        shared = one.pool.gpus - floors
        limit = (one.max_replicas - one.min_replicas) * one.gpus
        for replica in range(1, one.max_replicas + 2):
            used = replica * one.gpus
            own, borrowed = min(used, one.floor) - min(used - one.gpus, one.floor), max(0, used - one.floor)
            waits = None
            if borrowed > shared:
                waits = (
                    f"cohort {one.pool.name}: {borrowed - shared} GPUs of flavor {one.pool.name} short: "
                    f"{one.pool.gpus} in the pool, {floors} owned by models, {shared} to borrow, {borrowed} wanted"
                )
            elif borrowed > limit:
                waits = (
                    f"ClusterQueue {one.queue}: borrowingLimit {limit} of flavor {one.pool.name}, "
                    f"{borrowed - limit} GPUs short"
                )
            yield Step(one.name, replica, own, max(0, one.gpus - own), waits)
