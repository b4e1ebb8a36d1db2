"""A model's ClusterQueue as the simulation knows it: the rows that `kueue.py` writes."""

from halfbyte.deploy.facts import Served
from halfbyte.deploy.kueue import BATCH_PRIORITY
from halfbyte.deploy.platform import Pool
from halfbyte.deploy.simulation.admission import Queue


def queue_of(one: Served, pool: Pool) -> Queue:
    """Its row of one flavor."""
    return Queue(
        one.queue,
        one.floor if pool == one.pool else 0,
        borrowing=one.more(pool) * one.gpus,
        lending=0,
        reclaim="Any",
        within=True,
        borrow_below=BATCH_PRIORITY,
    )
