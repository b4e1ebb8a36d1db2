"""Work on the machines of a Ray cluster, one piece to a machine (extra `[ray]`).

Ray finds the machines, starts the work there and starts it again where a machine dies; who does what, and that nothing
is lost, is the work's own affair. Halfbyte is installed on every machine, and sees files under the same names there.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from halfbyte.errors import HalfbyteError, UnsupportedError, said

KNOCK_SECONDS = 10
RETRIES = 3
"""For a machine that dies."""


class ClusterError(HalfbyteError):
    """A cluster that cannot be reached, or that lost the work."""

    kind = "cluster"


@contextmanager
def cluster(address: str) -> Iterator["Cluster"]:
    """Connected: `auto`, HOST:PORT, ray://HOST:PORT, or `local` for one that is started here for as long.

    Raises UnsupportedError without Ray, ClusterError where none answers.
    """
    try:
        import ray
    except ImportError:
        raise UnsupportedError(
            said("{ray}: a cluster is reached through Ray"), hint="pip install 'halfbyte[ray]'"
        ) from None
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="halfbyte")
    except Exception as error:
        told = str(error).strip().splitlines()
        raise ClusterError(
            said("{ray} {address}: no cluster answers: {told}", address=address, told=(told or [""])[0][:200]),
            hint=said("give HOST:PORT of its head, {ray} auto on one of its machines, or {ray} local"),
        ) from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


class Cluster:
    """machines: those that have cores, by name: node number and cores."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        self.machines = {str(node["NodeID"]): int(node["Resources"]["CPU"]) for node in alive}
        if not self.machines:
            raise ClusterError("the cluster has no machine with a core", hint="start one: ray start")

    def run(
        self, work: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], meanwhile: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """work(*piece) of each, on machine after machine, all cores of it. meanwhile: called about once a second.

        Raises what the work raised, and ClusterError for work that is lost though it was started again.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        machines = list(self.machines.items())
        tasks = []
        for number, piece in enumerate(pieces):
            node, cores = machines[number % len(machines)]
            place = NodeAffinitySchedulingStrategy(node_id=node, soft=True)  # elsewhere if that machine is gone
            remote = self._ray.remote(num_cpus=cores, max_retries=RETRIES, scheduling_strategy=place)(work)
            tasks.append(remote.remote(*piece))
        left = list(tasks)
        try:
            while left:
                _, left = self._ray.wait(left, num_returns=len(left), timeout=1.0)
                meanwhile()
            return list(self._ray.get(tasks))
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HalfbyteError):
                raise cause from None
            raise ClusterError(f"the work failed on a machine: {_last(error)}") from None
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"the work was lost: {_last(error)}", hint="run the same command again") from None
        finally:
            for task in left:
                self._ray.cancel(task, force=True)


def _knock(address: str) -> None:
    """Ray itself asks a port where nobody is for minutes. Raises OSError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _last(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
