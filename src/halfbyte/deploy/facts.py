"""What a deployment follows from: the checkpoint, its plan, its pool, and how long a replica takes to start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halfbyte.checkpoint.header import header_length
from halfbyte.checkpoint.index import SHARD_SUFFIX
from halfbyte.checkpoint.json_file import read_json
from halfbyte.deploy.approval import approved, weights_hashes
from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.fallback import Place, gpus_of, places
from halfbyte.deploy.platform import Model, Platform, Pool
from halfbyte.errors import CheckpointError
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.plan import PlanDocument
from halfbyte.serve.engine.command import Command

PORT = 30000
MODELS = "/models"
STARTUP_FACTOR = 2
"""Budget of a start as a multiple of the planned one: storage is shared, and kernels are compiled on the first."""
BYTES_TOLERANCE = 0.02
PERIOD_S = 10
ROUTER_S = 15
"""Until routers have taken a replica that ends out of their lists."""


@dataclass(frozen=True)
class Served:
    """One model as it is deployed.

    object: what its objects are called. gpus: of a replica. places: where it may run, first its own pool, then those
    it falls back to. decision: the gate's; None with --no-gate. sha256: file -> hash of all that a replica loads.
    """

    model: Model
    places: tuple[Place, ...]
    decision: DecisionDocument | None
    sha256: dict[str, str]
    bytes: int
    min_replicas: int
    max_replicas: int
    cold_start_s: int
    drain_s: int

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def pool(self) -> Pool:
        return self.places[0].pool

    @property
    def pools(self) -> list[Pool]:
        """Its own, then those it falls back to."""
        return [place.pool for place in self.places]

    @property
    def plan(self) -> PlanDocument:
        return self.places[0].plan

    @property
    def command(self) -> Command:
        """Of its server, in its own pool."""
        return self.places[0].command

    @property
    def object(self) -> str:
        return self.model.name.replace(".", "-")

    @property
    def queue(self) -> str:
        """Its ClusterQueue, and the LocalQueue of the same name."""
        return self.object

    @property
    def gpus(self) -> int:
        return gpus_of(self.plan)

    @property
    def nodes(self) -> int:
        """That a replica spreads over."""
        return -(-self.gpus // self.pool.gpus_per_node)

    @property
    def gpus_per_node(self) -> int:
        return self.gpus // self.nodes

    @property
    def floor(self) -> int:
        """GPUs that are the model's own."""
        return self.min_replicas * self.gpus

    @property
    def startup_budget_s(self) -> int:
        return STARTUP_FACTOR * self.cold_start_s

    @property
    def grace_s(self) -> int:
        return self.drain_s + ROUTER_S

    @property
    def cpus(self) -> int:
        """That a pod asks for."""
        return min(self._share(pool, pool.cpus_per_node) for pool in self.pools)

    @property
    def memory_gib(self) -> int:
        return min(self._share(pool, pool.memory_per_node_gib) for pool in self.pools)

    def _share(self, pool: Pool, of_node: int) -> int:
        """What a pod gets of a node's processors or memory, by its GPUs; a little is left to the node."""
        return max(1, of_node * 15 // 16 * self.gpus_per_node // pool.gpus_per_node)

    def more(self, pool: Pool) -> int:
        """Replicas beyond the least that may run in a pool."""
        held = holds(pool, self.gpus) - (self.min_replicas if pool == self.pool else 0)
        return min(self.max_replicas - self.min_replicas, held)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that may wait for each replica before another is added: what it takes in within the objective."""
        rate = self.plan.throughput.input_tokens_per_s or 0.0
        each = rate / max(1, self.plan.deployment.replicas)
        return max(self.plan.deployment.context // 4, 1) if not each else max(1, round(each))


def facts(target: Path, plans: Sequence[PlanDocument], platform: Platform, *, gated: bool = True) -> Served:
    """plans: of the model's own pool first, then for other kinds of GPU that it falls back to. gated: whether a passing
    decision is asked for. Raises HalfbyteError for what cannot be deployed."""
    if not target.is_dir():
        raise CheckpointError(f"{target}: no such folder", hint="give a checkpoint folder")
    decision = approved(target) if gated else None
    model = platform.model_for(target)
    tensor_bytes = max(_check_same(target, plan) for plan in plans)
    at = places(target, model, plans, platform, f"{MODELS}/{model.name}")
    least, most = _replicas(model, [place.pool for place in at], gpus_of(at[0].plan))
    load_s = tensor_bytes / 1e9 / platform.weights.load_gb_per_s
    return Served(
        model=model,
        places=at,
        decision=decision,
        sha256={} if model.weights_image is not None else weights_hashes(target, decision),
        bytes=tensor_bytes,
        min_replicas=least,
        max_replicas=most,
        cold_start_s=math.ceil(load_s + platform.weights.warm_up_seconds),
        drain_s=math.ceil(platform.objectives.p99_answer_seconds),
    )


def holds(pool: Pool, gpus: int) -> int:
    """Replicas of so many GPUs that a pool has room for."""
    if gpus > pool.gpus_per_node:
        return pool.nodes // (gpus // pool.gpus_per_node)
    return pool.nodes * (pool.gpus_per_node // gpus)


def _replicas(model: Model, pools: Sequence[Pool], gpus: int) -> tuple[int, int]:
    """Least and most: the least are the model's own, in its own pool. Raises DeployError where pools hold too few."""
    for name, wanted, where in (
        ("min_replicas", model.min_replicas, pools[:1]),
        ("max_replicas", model.max_replicas or 0, pools),
    ):
        held = sum(holds(pool, gpus) for pool in where)
        if wanted > held:
            shown = " and ".join(f"pool {pool.name} of {pool.nodes} x {pool.gpus_per_node}" for pool in where)
            raise DeployError(
                f"platform: model {model.name}: {name} {wanted} of {gpus} GPUs each, {shown} holds {held}",
                hint=f"lower {name}, or add nodes",
            )
    return model.min_replicas, model.max_replicas or sum(holds(pool, gpus) for pool in pools)


def _check_same(target: Path, plan: PlanDocument) -> int:
    """Bytes of the tensors. Raises DeployError for a plan of another checkpoint."""
    config = read_json(target / "config.json")
    stated = config.get("model_type")
    kinds = {stated, (config.get("text_config") or {}).get("model_type")} if isinstance(config, dict) else {stated}
    if plan.model_type not in kinds:
        raise DeployError(
            f"the plan is for a {plan.model_type[:40]}, {target.name} is a {str(stated)[:40]}",
            hint="make one: halfbyte plan TARGET ... -o plan.json",
        )
    total = 0
    for path in sorted(target.glob(f"*{SHARD_SUFFIX}")):
        with open(path, "rb") as file:
            size = path.stat().st_size
            total += size - 8 - header_length(file.read(8), size, str(path))
    if abs(total - plan.checkpoint_bytes) > BYTES_TOLERANCE * max(total, 1):
        raise DeployError(
            f"the plan is for a checkpoint of {plan.checkpoint_bytes:,} bytes, {target.name} has {total:,}",
            hint="make one for this checkpoint: halfbyte plan TARGET ... -o plan.json",
        )
    return total
