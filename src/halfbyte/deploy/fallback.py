"""Pools that a model's replicas may run in where their own is full, and what must hold for that.

Kueue admits a pod as it stands to one of several flavors: the same containers and the same requests on either GPU. So
a replica has the same shape in every pool. Where two kinds of GPU want different flags, the container asks its GPU what
it is and starts accordingly.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.platform import Model, Platform, Pool
from halfbyte.errors import said
from halfbyte.evidence.plan import PlanDocument
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.serve.engine.command import Command, planned_command

CAPABILITY = "nvidia-smi --query-gpu=compute_cap --format=csv,noheader --id=0"


@dataclass(frozen=True)
class Place:
    """A pool, and the plan and the command of a replica there."""

    pool: Pool
    gpu: Gpu
    plan: PlanDocument
    command: Command


def places(
    target: Path, model: Model, plans: Sequence[PlanDocument], platform: Platform, where: str
) -> tuple[Place, ...]:
    """Where a replica may run, first choice first. plans: the first is of the model's own pool. where: the weights lie.

    Raises DeployError for a pool that has no plan, a plan that has no pool, and places that cannot stand in for each
    other.
    """
    pools = _planned(model, plans, platform)
    shapes = [(pool, plan, _nodes(plan, pool)) for pool, plan in pools]
    for other in shapes[1:]:
        _check_shape(platform, model, shapes[0], other)
    found = tuple(
        Place(pool, find_gpu(pool.gpu), plan, planned_command(target, plan, where, model.name, nodes))
        for pool, plan, nodes in shapes
    )
    for first, second in combinations(found, 2):
        _check_start(model, first, second)
    return found


def _planned(model: Model, plans: Sequence[PlanDocument], platform: Platform) -> list[tuple[Pool, PlanDocument]]:
    """The model's pools in order, each with its plan. Raises DeployError unless every pool has one, and every plan."""
    by_gpu = {plan.deployment.gpu: plan for plan in reversed(plans)}
    if len(by_gpu) < len(plans):
        raise DeployError(
            f"model {model.name} has {len(plans)} plans for {' and '.join(sorted(by_gpu))}",
            hint="give one for each kind of GPU",
        )
    own = platform.pool_for(model, plans[0].deployment.gpu)
    if own.name in model.fallback_pools:
        raise DeployError(f"platform: model {model.name} falls back from pool {own.name} to itself")
    pools = [own, *(platform.pool(name) for name in model.fallback_pools)]
    for pool in pools:
        if pool.gpu not in by_gpu:
            raise DeployError(
                f"platform: model {model.name} falls back to pool {pool.name} of {pool.gpu}, but the plan is for "
                f"{own.gpu}",
                hint=said("plan it for {gpu} {name} too, and give that plan with {also} TARGET=PLAN", name=pool.gpu),
            )
    unused = sorted(by_gpu.keys() - {pool.gpu for pool in pools})
    if unused:
        raise DeployError(
            f"the plan for {unused[0]} is for none of model {model.name}'s pools "
            f"({', '.join(f'{pool.name} of {pool.gpu}' for pool in pools)})",
            hint="name a pool of that GPU among the model's fallback_pools",
        )
    return [(pool, by_gpu[pool.gpu]) for pool in pools]


def gpus_of(plan: PlanDocument) -> int:
    """Of one replica."""
    return plan.deployment.gpus // max(1, plan.deployment.replicas)


def _nodes(plan: PlanDocument, pool: Pool) -> int:
    """That a replica spreads over. Raises DeployError for a plan that does not fit, or fills no nodes."""
    if not plan.fits:
        why = plan.problems[0] if plan.problems else "see its terms"
        raise DeployError(f"the plan does not fit: {why}", hint=plan.smallest_change)
    gpus = gpus_of(plan)
    nodes = -(-gpus // pool.gpus_per_node)
    if nodes > 1 and gpus % pool.gpus_per_node:
        raise DeployError(
            f"a replica of {gpus} GPUs does not fill nodes of {pool.gpus_per_node} (pool {pool.name})",
            hint=f"plan for a multiple of {pool.gpus_per_node} GPUs",
        )
    return nodes


Shape = tuple[Pool, PlanDocument, int]
"""A pool, the plan of a replica there, and the nodes that it spreads over."""


def _check_shape(platform: Platform, model: Model, own: Shape, other: Shape) -> None:
    """Raises DeployError where a replica of one pool is none of the other."""
    (here, plan, nodes), (there, its, its_nodes) = own, other
    a, b = plan.deployment, its.deployment
    pairs: list[tuple[str, object, object]] = [
        ("engine", a.engine, b.engine),
        ("GPUs of a replica", gpus_of(plan), gpus_of(its)),
        ("nodes of a replica", nodes, its_nodes),
        ("context", a.context, b.context),
    ]
    if platform.options.serving == "kserve":
        pairs.append(("tp and pp (KServe has one for all)", (a.tp, a.pp), (b.tp, b.pp)))
    for what, one, another in pairs:
        if one != another:
            raise DeployError(
                f"platform: model {model.name} cannot fall back from pool {here.name} to {there.name}: {what} {one}, "
                f"there {another}",
                hint="a replica has one shape in all its pools: plan both alike",
            )
    level = here.topology[:1] if nodes > 1 else ()
    if level and level[0] not in there.topology:
        raise DeployError(
            f"platform: model {model.name} asks for nodes of one {level[0]}, which is no level of pool "
            f"{there.name}'s topology",
            hint="give both pools that level",
        )


def _check_start(model: Model, a: Place, b: Place) -> None:
    """Raises DeployError where a container could not tell which of two commands is meant."""
    if (a.command.words, a.command.env) == (b.command.words, b.command.env):
        return
    apart = a.gpu.compute_capability != b.gpu.compute_capability and a.gpu.platform == b.gpu.platform == "cuda"
    if not apart or a.command.env != b.command.env:
        differ = sorted({*a.command.words, *a.command.env.values()} ^ {*b.command.words, *b.command.env.values()})
        raise DeployError(
            f"platform: model {model.name} would start with other flags in pool {b.pool.name} than in {a.pool.name} "
            f"({' '.join(differ)[:120]}), and a pod cannot tell {a.gpu.name} from {b.gpu.name}",
            hint="plan both with the same options",
        )


def start(at: Sequence[Place], more: Sequence[str]) -> list[str]:
    """The container's command. more: words after those of the plan."""
    commands = [[*place.command.words, *more] for place in at]
    if all(words == commands[0] for words in commands):
        return commands[0]
    # Backticks: Kubernetes reads $(...) in a command as one of its variables.
    lines = [f"case `{CAPABILITY}` in"]
    by_capability = {place.gpu.compute_capability: words for place, words in zip(at, commands, strict=True)}
    for capability, words in by_capability.items():
        lines += [f"{capability})", f"  exec {_shell(words)} ;;"]
    lines += ["*)", f"  echo no plan for this GPU, only for {' and '.join(by_capability)} >&2; exit 1 ;;", "esac"]
    return ["/bin/sh", "-c", "\n".join(lines) + "\n"]


def _shell(words: Sequence[str]) -> str:
    """A flag to a line, so that a difference is one line."""
    text = ""
    for word in words:
        text += f" \\\n    {shlex.quote(word)}" if word.startswith("-") and text else f" {shlex.quote(word)}"
    return text.lstrip()
