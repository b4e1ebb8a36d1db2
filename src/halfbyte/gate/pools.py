"""The target's GPUs: from `b200x8`, or from the nodes of a cluster as `kubectl get nodes -o json` prints them.

Labels are those of NVIDIA's GPU feature discovery: `nvidia.com/gpu.product`, `.count`, `.compute.major` and `.minor`.
`gpu.family` is not used: it says `blackwell` for compute 10 and 12 alike.
"""

import re
from dataclasses import dataclass
from typing import Any

from halfbyte.errors import HalfbyteError, UsageError
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import printable
from halfbyte.plan.hardware import find_gpu

PREFIX = "nvidia.com/"


@dataclass(frozen=True)
class Pool:
    """GPUs of one product. node_gpus: on the best node; None where all are one machine."""

    product: str
    major: int
    minor: int
    gpus: int
    node_gpus: int | None = None


@dataclass(frozen=True)
class Pools:
    """asked: a target was given. usable: best first. refused: why nodes were left out."""

    asked: bool
    usable: list[Pool]
    refused: list[str]


def pools_of(facts: Facts) -> Pools:
    """The target's pools. Raises UsageError for hardware that cannot be read."""
    if facts.options.hardware:
        return Pools(True, [pool_from(facts.options.hardware)], [])
    if facts.options.cluster is not None:
        return _cluster(facts.options.cluster)
    return Pools(False, [], [])


def pool_from(text: str) -> Pool:
    """`b200x8`: a GPU of the hardware catalogue and how many. Raises UsageError."""
    found = re.fullmatch(r"\s*(.+?)\s*[xX*]\s*(\d{1,5})\s*", text)
    if not found or not int(found.group(2)):
        raise UsageError(f"{text[:60]!r} is not GPUxCOUNT", hint="for instance b200x8")
    gpu = find_gpu(found.group(1))
    if gpu.platform != "cuda":
        raise UsageError(f"{gpu.name}: NVFP4 has no kernels on {gpu.platform}", hint="known: NVIDIA GPUs")
    major, minor = gpu.compute_capability.split(".")
    return Pool(gpu.name, int(major), int(minor), int(found.group(2)))


def _cluster(document: dict[str, Any]) -> Pools:
    nodes = document.get("items")
    if not isinstance(nodes, list):
        raise UsageError("the cluster file has no list of nodes", hint="write it with kubectl get nodes -o json")
    counts: dict[tuple[str, int, int], list[int]] = {}
    refused: list[str] = []
    for node in nodes:
        found = _node(node, refused)
        if found is not None:
            key, gpus = found
            counts.setdefault(key, []).append(gpus)
    pools = [Pool(*key, sum(gpus), max(gpus)) for key, gpus in counts.items()]
    return Pools(True, sorted(pools, key=lambda pool: (-pool.major, -pool.gpus)), refused)


def _node(node: Any, refused: list[str]) -> tuple[tuple[str, int, int], int] | None:
    """((product, major, minor), GPUs) of a node that can take the model; None otherwise, GPUs refused with a reason."""
    metadata = _mapping(node, "metadata")
    labels, status = _mapping(metadata, "labels"), _mapping(node, "status")
    name = printable(str(metadata.get("name", "?")), 80)
    gpus = _number(_mapping(status, "allocatable").get(f"{PREFIX}gpu", labels.get(f"{PREFIX}gpu.count")))
    product = labels.get(f"{PREFIX}gpu.product")
    if not gpus or not isinstance(product, str):
        return None
    if _mapping(node, "spec").get("unschedulable") is True:
        refused.append(f"{name}: unschedulable")
    elif product.endswith("-SHARED") or "-MIG-" in product or labels.get(f"{PREFIX}mig.strategy") not in (None, "none"):
        refused.append(f"{name}: {printable(product, 80)} is shared or sliced (MIG), the model needs whole GPUs")
    else:
        major, minor = _number(labels.get(f"{PREFIX}gpu.compute.major")), labels.get(f"{PREFIX}gpu.compute.minor")
        known = _catalogued(product)
        if not major and known is None:
            refused.append(f"{name}: {printable(product, 80)} has no label gpu.compute.major and is in no catalogue")
            return None
        key = (known[0] if known else product, major or known[1], _number(minor) if major else known[2])  # type: ignore[index]
        return key, gpus
    return None


def _catalogued(product: str) -> tuple[str, int, int] | None:
    """Catalogue name and compute capability of a product label, by its words up to the form factor."""
    words = product.split("-")
    for stop in range(len(words), 0, -1):
        try:
            gpu = find_gpu(" ".join(words[:stop]))
        except HalfbyteError:
            continue
        major, minor = gpu.compute_capability.split(".")
        return gpu.name, int(major), int(minor)
    return None


def _mapping(value: Any, key: str) -> dict[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isascii() and str(value).isdigit() else 0
