"""What a deployment follows from: the checkpoint, its plan, its pool, and how long a replica takes to start."""

import math
from dataclasses import dataclass
from pathlib import Path

from halfbyte.checkpoint.header import header_length
from halfbyte.checkpoint.index import SHARD_SUFFIX
from halfbyte.checkpoint.json_file import read_json
from halfbyte.deploy.approval import approved, weights_hashes
from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.platform import Model, Platform, Pool
from halfbyte.errors import CheckpointError
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.plan import PlanDocument
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.serve.engine.command import Command, planned_command

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

    object: what its objects are called. gpus: of a replica. decision: the gate's; None with --no-gate. sha256: file ->
    hash of all that a replica loads. command: of its server.
    """

    model: Model
    pool: Pool
    gpu: Gpu
    plan: PlanDocument
    decision: DecisionDocument | None
    sha256: dict[str, str]
    bytes: int
    command: Command
    min_replicas: int
    max_replicas: int
    cold_start_s: int
    drain_s: int

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def object(self) -> str:
        return self.model.name.replace(".", "-")

    @property
    def queue(self) -> str:
        """Its ClusterQueue, and the LocalQueue of the same name."""
        return self.object

    @property
    def gpus(self) -> int:
        return self.plan.deployment.gpus // self.plan.deployment.replicas

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

    def share(self, of_node: int) -> int:
        """What a pod gets of a node's processors or memory, by its GPUs; a little is left to the node."""
        return max(1, of_node * 15 // 16 * self.gpus_per_node // self.pool.gpus_per_node)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that may wait for each replica before another is added: what it takes in within the objective."""
        rate = self.plan.throughput.input_tokens_per_s or 0.0
        each = rate / max(1, self.plan.deployment.replicas)
        return max(self.plan.deployment.context // 4, 1) if not each else max(1, round(each))


def facts(target: Path, plan: PlanDocument, platform: Platform, *, gated: bool = True) -> Served:
    """gated: whether a passing decision is asked for. Raises HalfbyteError for what cannot be deployed."""
    if not target.is_dir():
        raise CheckpointError(f"{target}: no such folder", hint="give a checkpoint folder")
    decision = approved(target) if gated else None
    model = platform.model_for(target)
    deployment = plan.deployment
    if not plan.fits:
        why = plan.problems[0] if plan.problems else "see its terms"
        raise DeployError(f"the plan does not fit: {why}", hint=plan.smallest_change)
    pool = platform.pool_for(model, deployment.gpu)
    tensor_bytes = _check_same(target, plan)
    gpus = deployment.gpus // max(1, deployment.replicas)
    nodes = -(-gpus // pool.gpus_per_node)
    if nodes > 1 and gpus % pool.gpus_per_node:
        raise DeployError(
            f"a replica of {gpus} GPUs does not fill nodes of {pool.gpus_per_node} (pool {pool.name})",
            hint=f"plan for a multiple of {pool.gpus_per_node} GPUs",
        )
    least, most = _replicas(model, pool, gpus)
    load_s = tensor_bytes / 1e9 / platform.weights.load_gb_per_s
    return Served(
        model=model,
        pool=pool,
        gpu=find_gpu(deployment.gpu),
        plan=plan,
        decision=decision,
        sha256={} if model.weights_image is not None else weights_hashes(target, decision),
        bytes=tensor_bytes,
        command=planned_command(target, plan, f"{MODELS}/{model.name}", model.name, nodes),
        min_replicas=least,
        max_replicas=most,
        cold_start_s=math.ceil(load_s + platform.weights.warm_up_seconds),
        drain_s=math.ceil(platform.objectives.p99_answer_seconds),
    )


def _replicas(model: Model, pool: Pool, gpus: int) -> tuple[int, int]:
    """Raises DeployError where the pool holds too few."""
    holds = (
        pool.nodes // (gpus // pool.gpus_per_node)
        if gpus > pool.gpus_per_node
        else (pool.nodes * (pool.gpus_per_node // gpus))
    )
    for name, wanted in (("min_replicas", model.min_replicas), ("max_replicas", model.max_replicas or 0)):
        if wanted > holds:
            raise DeployError(
                f"platform: model {model.name}: {name} {wanted} of {gpus} GPUs each, pool {pool.name} of "
                f"{pool.nodes} x {pool.gpus_per_node} holds {holds}",
                hint=f"lower {name}, or add nodes",
            )
    return model.min_replicas, model.max_replicas or holds


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
