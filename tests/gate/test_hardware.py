"""Pools from `b200x8` and from nodes; told apart by compute major; plan by peak."""

import json
from pathlib import Path
from typing import Any

import pytest

from halfbyte.errors import UsageError
from halfbyte.gate.judge import gate
from halfbyte.gate.pools import pool_from

from .test_corpus import policy_with


def node(product: str, major: str | None, gpus: int = 8, **changes: Any) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.family": "blackwell"}
    if major is not None:
        labels |= {"nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": "0"}
    labels |= changes.pop("labels", {})
    status = {"allocatable": {"nvidia.com/gpu": str(gpus)}, "capacity": {"nvidia.com/gpu": str(gpus)}}
    return {"kind": "Node", "metadata": {"name": f"n-{product}", "labels": labels}, "status": status, "spec": changes}


def judged(folder: Path, tmp_path: Path, nodes: list[dict[str, Any]], **policy: Any) -> Any:
    cluster = tmp_path / "nodes.json"
    cluster.write_text(json.dumps({"kind": "List", "items": nodes}))
    return gate(folder, cluster=cluster, policy=policy_with({"hardware": policy} if policy else None))


def rules(decision: Any) -> set[str]:
    return {finding.rule for finding in decision.findings if finding.refuses}


CPU = {"metadata": {"name": "cpu", "labels": {}}, "status": {"allocatable": {"cpu": "64"}}, "spec": {}}
B200, B300 = node("NVIDIA-B200", "10"), node("NVIDIA-B300-SXM6-AC", "10")
RTX, H200, A100 = (
    node("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "12"),
    node("NVIDIA-H200", "9"),
    node("NVIDIA-A100-SXM4-80GB", "8"),
)


@pytest.mark.parametrize(
    "nodes",
    [
        [CPU, B200],
        [B300],
        [RTX],
        [H200],
        [A100, B200],
        [node("NVIDIA-B200", None)],
        [node("NVIDIA-B200-MIG-1g.23gb", "10"), B200],
    ],
)
def test_pools_that_can(nodes: list[dict[str, Any]], tiny_folder: Path, tmp_path: Path) -> None:
    assert judged(tiny_folder, tmp_path, nodes).verdict == "pass"


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [CPU],
        [A100],
        [node("NVIDIA-B200-SHARED", "10")],
        [node("NVIDIA-B200-MIG-1g.23gb", "10")],
        [node("NVIDIA-B200", "10", labels={"nvidia.com/mig.strategy": "single"})],
        [node("NVIDIA-B200", "10", unschedulable=True)],
        [node("NVIDIA-B200", "10", gpus=0)],
        [node("ACME-X1", None)],
    ],
)
def test_pools_that_cannot(nodes: list[dict[str, Any]], tiny_folder: Path, tmp_path: Path) -> None:
    assert rules(judged(tiny_folder, tmp_path, nodes)) == {"hardware.capability"}


def test_the_fallback_is_the_policys_to_accept(tiny_folder: Path, tmp_path: Path) -> None:
    assert rules(judged(tiny_folder, tmp_path, [H200], fallback=[])) == {"hardware.capability"}
    accepted = judged(tiny_folder, tmp_path, [H200])
    assert "hardware.fallback" in {finding.rule for finding in accepted.findings}
    assert "hardware.sm120" in {finding.rule for finding in judged(tiny_folder, tmp_path, [RTX]).findings}


def test_hardware_that_the_policy_asks_for_and_nobody_names(tiny_folder: Path) -> None:
    decision = gate(tiny_folder, policy=policy_with({"hardware": {"required": True}}))
    assert (decision.verdict, decision.exit_code) == ("undecided", 3)


@pytest.mark.parametrize("text", ["b200", "8xb200", "b200x0", "", "b2000x8", "mi300xx8"])
def test_senseless_hardware_is_usage(text: str) -> None:
    with pytest.raises(UsageError):
        pool_from(text)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"items": 3}', '{"items": {}}'])
def test_senseless_clusters_are_usage(content: str, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(content)
    with pytest.raises(UsageError):
        gate(tiny_folder, cluster=tmp_path / "nodes.json")


def test_senseless_nodes_are_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    odd: list[Any] = [3, None, {}, {"metadata": 1}, {"metadata": {"labels": []}}, {"status": {"allocatable": "x"}}]
    assert judged(tiny_folder, tmp_path, [*odd, B200]).verdict == "pass"
