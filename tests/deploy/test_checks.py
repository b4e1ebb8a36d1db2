"""Cross-object checks: each has a set of manifests that fails it, made from sound ones by one edit."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halfbyte.deploy.checks import faults
from halfbyte.deploy.reading import ManifestError, check

from .conftest import Ground, documents, halfbyte, save

Edit = Callable[[list[dict[str, Any]]], None]


def one(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(found_one for found_one in found if found_one["kind"] == kind and found_one["metadata"]["name"] == name)


def gpu_row(queue: dict[str, Any]) -> dict[str, Any]:
    rows = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    return next(row for row in rows if row["name"] == "nvidia.com/gpu")


def container(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


def drop(kind: str, name: str) -> Edit:
    return lambda found: found.remove(one(found, kind, name))


def put(kind: str, name: str, path: str, value: Any) -> Edit:
    def edit(found: list[dict[str, Any]]) -> None:
        place: Any = one(found, kind, name)
        *steps, last = (step.replace("~1", "/") for step in path.split("/"))
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[last] = value

    return edit


def quota(kind: str, name: str, field: str, value: Any) -> Edit:
    return lambda found: gpu_row(one(found, kind, name)).update({field: value})


def both(*edits: Edit) -> Edit:
    def edit(found: list[dict[str, Any]]) -> None:
        for each in edits:
            each(found)

    return edit


def command(name: str, old: str, new: str) -> Edit:
    def edit(found: list[dict[str, Any]]) -> None:
        words = container(one(found, "Deployment", name))["command"]
        words[words.index(old)] = new

    return edit


def password(found: list[dict[str, Any]]) -> None:
    container(one(found, "Deployment", "door-frontier"))["env"].append({"name": "DB_PASSWORD", "value": "x"})


def ledger_in_plain_text(found: list[dict[str, Any]]) -> None:
    words = container(one(found, "Deployment", "door-frontier"))["command"]
    words[words.index("--state") + 1] = "postgresql://u:hunter2@db/ledger"


def secret(found: list[dict[str, Any]]) -> None:
    meta = {"name": "s", "namespace": "llm"}
    found.append({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": "k"}})


def twice(found: list[dict[str, Any]]) -> None:
    found.append(one(found, "Service", "frontier"))


POD = "spec/template/spec"
PROBE = f"{POD}/containers/0/startupProbe"
MISTAKES: dict[str, tuple[Edit, str]] = {
    "queue gone": (drop("LocalQueue", "frontier"), "frontier"),
    "cluster queue gone": (drop("ClusterQueue", "frontier"), "ClusterQueue frontier"),
    "flavor gone": (drop("ResourceFlavor", "blackwell"), "flavor blackwell"),
    "cohort gone": (drop("Cohort", "blackwell"), "cohort blackwell"),
    "priority class gone": (drop("WorkloadPriorityClass", "frontier"), "priority class frontier"),
    "no namespace let in": (put("ClusterQueue", "frontier", "spec/namespaceSelector", None), "namespaceSelector"),
    "floor above the least": (quota("ClusterQueue", "frontier", "nominalQuota", 24), "floor of 24"),
    "floor below the least": (
        both(
            quota("ClusterQueue", "frontier", "nominalQuota", 8),
            quota("ClusterQueue", "frontier", "borrowingLimit", 0),
        ),
        "allows 8",
    ),
    "more replicas than may be borrowed": (put("ScaledObject", "frontier", "spec/maxReplicaCount", 7), "allows 48"),
    "borrowing less than the autoscaler asks": (quota("ClusterQueue", "frontier", "borrowingLimit", 8), "allows 24"),
    "pool smaller than the autoscaler asks": (quota("Cohort", "blackwell", "nominalQuota", 8), "allows 24"),
    "taint of another value": (
        put("ResourceFlavor", "blackwell", "spec/nodeTaints", [{"key": "other", "value": "x", "effect": "NoSchedule"}]),
        "tolerates",
    ),
    "probe shorter than a start": (put("Deployment", "frontier", f"{PROBE}/failureThreshold", 3), "startup budget"),
    "no startup probe": (
        lambda found: container(one(found, "Deployment", "frontier")).pop("startupProbe"),
        "startupProbe",
    ),
    "deadline below the probe": (
        put("Deployment", "frontier", "spec/progressDeadlineSeconds", 600),
        "progressDeadline",
    ),
    "kueue's timeout below the probe": (
        put("ClusterQueue", "frontier", "metadata/annotations", {"halfbyte.dev/wait-for-pods-ready-seconds": "300"}),
        "WaitForPodsReady",
    ),
    "grace below the longest answer": (
        put("Deployment", "frontier", f"{POD}/terminationGracePeriodSeconds", 60),
        "terminationGracePeriodSeconds 60",
    ),
    "grace of the door": (
        put("Deployment", "door-frontier", f"{POD}/terminationGracePeriodSeconds", 30),
        "door-frontier",
    ),
    "surge": (put("Deployment", "frontier", "spec/strategy/rollingUpdate/maxSurge", 1), "maxSurge"),
    "surge by default": (put("Deployment", "frontier", "spec/strategy", {"type": "RollingUpdate"}), "maxSurge"),
    "scaler without its target": (drop("Deployment", "frontier"), "target"),
    "scaled to nothing": (put("ScaledObject", "frontier", "spec/minReplicaCount", 0), "minReplicaCount 0"),
    "least above most": (put("ScaledObject", "frontier", "spec/minReplicaCount", 7), "minReplicaCount 7"),
    "a hundred by default": (
        lambda found: one(found, "ScaledObject", "frontier")["spec"].pop("maxReplicaCount"),
        "maxReplicaCount",
    ),
    "several series": (
        put("ScaledObject", "frontier", "spec/triggers/0/metadata/query", "halfbyte_queue_tokens"),
        "several series",
    ),
    "a missing series is nought": (
        put("ScaledObject", "frontier", "spec/triggers/1/metadata/ignoreNullValues", "true"),
        "ignoreNullValues",
    ),
    "budget of one replica": (
        both(
            put("ScaledObject", "frontier", "spec/minReplicaCount", 1),
            quota("ClusterQueue", "frontier", "nominalQuota", 8),
            quota("ClusterQueue", "frontier", "borrowingLimit", 40),
        ),
        "PodDisruptionBudget frontier",
    ),
    "budget of nobody": (
        put("PodDisruptionBudget", "frontier", "spec/selector", {"matchLabels": {"app": "x"}}),
        "selects no pods",
    ),
    "service of nobody": (put("Service", "frontier", "spec/selector", {"app": "x"}), "Service frontier"),
    "port that nobody opens": (put("Service", "door-frontier", "spec/ports/0/targetPort", 9), "target port 9"),
    "claim gone": (drop("PersistentVolumeClaim", "frontier-weights"), "frontier-weights"),
    "config gone": (drop("ConfigMap", "halfbyte-door"), "halfbyte-door"),
    "tenant of no model": (
        put("ConfigMap", "halfbyte-door", "data/tenants.json", '{"tenants": {"t": {"models": ["m"]}}}'),
        "tenant t",
    ),
    "model without a price": (
        put("ConfigMap", "halfbyte-door", "data/prices.json", '{"usd_per_million_tokens": {}}'),
        "no price",
    ),
    "prices that are no JSON": (put("ConfigMap", "halfbyte-door", "data/prices.json", "{"), "no JSON"),
    "upstream nowhere": (
        command("door-frontier", "http://frontier-router:8080/v1", "http://nobody:8080/v1"),
        "upstream http://nobody",
    ),
    "upstream of another port": (
        command("door-frontier", "http://frontier-router:8080/v1", "http://frontier-router:81/v1"),
        "ports [8080]",
    ),
    "root": (put("Deployment", "frontier", f"{POD}/containers/0/securityContext/runAsNonRoot", False), "runAsNonRoot"),
    "writable root": (
        put("Deployment", "frontier", f"{POD}/containers/0/securityContext/readOnlyRootFilesystem", False),
        "readOnlyRootFilesystem",
    ),
    "escalation": (
        put("Deployment", "frontier", f"{POD}/containers/0/securityContext/allowPrivilegeEscalation", True),
        "allowPrivilegeEscalation",
    ),
    "password": (password, "DB_PASSWORD"),
    "ledger in plain text": (ledger_in_plain_text, "secret"),
    "secret": (secret, "Secret s"),
    "name of capitals": (put("Service", "frontier", "metadata/name", "Frontier"), "Frontier"),
    "twice": (twice, "2 times"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_by_name(written: Path, tmp_path: Path, mistake: str) -> None:
    edit, said = MISTAKES[mistake]
    found = documents(written)
    edit(found)
    save(tmp_path / "edited", found)
    with pytest.raises(ManifestError) as refused:
        check(tmp_path / "edited")
    lines = f"{refused.value.message} {refused.value.hint} {' '.join(faults(found))}"
    assert said in lines


def test_a_queue_label_in_a_group_s_pods(written16: Path) -> None:
    found = documents(written16)
    template = one(found, "LeaderWorkerSet", "frontier")["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    template["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "frontier"
    assert "workerTemplate carries" in faults(found)[0]


def test_a_long_name_of_a_group(written16: Path) -> None:
    found = documents(written16)
    one(found, "LeaderWorkerSet", "frontier")["metadata"]["name"] = "f" * 40
    assert any("40 characters" in line for line in faults(found))


@pytest.mark.parametrize(
    "edit",
    [
        put("Deployment", "frontier", f"{POD}/terminationGracePeriodSeconds", 3600),
        put("Deployment", "frontier", "metadata/annotations/team", "serving"),
        put("Deployment", "frontier", f"{POD}/hostNetwork", False),
        put("Deployment", "frontier", f"{PROBE}/failureThreshold", 80),
        put("ScaledObject", "frontier", "spec/maxReplicaCount", 4),
        put("Service", "frontier", "metadata/labels/a", "b"),
    ],
)
def test_what_people_may_change(written: Path, tmp_path: Path, edit: Edit) -> None:
    found = documents(written)
    edit(found)
    save(tmp_path / "edited", found)
    assert check(tmp_path / "edited") == len(found)


def test_files_and_kustomization_agree(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "k8s")
    (tmp_path / "k8s/extra.yaml").write_text("kind: X\n")
    with pytest.raises(ManifestError, match=r"extra\.yaml"):
        check(tmp_path / "k8s")
    (tmp_path / "k8s/extra.yaml").unlink()
    (tmp_path / "k8s/kueue.yaml").unlink()
    done = halfbyte("deploy", "--check", tmp_path / "k8s")
    assert done.returncode == 1
    assert "kueue.yaml" in done.stderr
    assert halfbyte("deploy", "--check", tmp_path / "nowhere").returncode == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_every_alert_fires_and_is_silent(written: Path) -> None:
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run(["promtool", *words], cwd=written / "rule-tests", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_bundle_crosses_the_gap(ground: Ground, written: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert halfbyte("bundle", ground.target, "--manifests", written, "-o", out).returncode == 0
    assert halfbyte("unbundle", out, "--verify").returncode == 0
    assert halfbyte("unbundle", out, tmp_path / "there", "--verify").returncode == 0
    there = tmp_path / "there/checkpoint" / ground.target.name
    assert halfbyte("verify", Path(__file__).parents[2] / "examples/tiny-glm", there).returncode == 0
    assert halfbyte("deploy", "--check", tmp_path / "there/manifests").returncode == 0
    shard = next((out / "checkpoint").rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = halfbyte("unbundle", out, tmp_path / "elsewhere", "--verify")
    assert done.returncode == 1
    assert shard.name in done.stderr
    assert not list((tmp_path / "elsewhere").rglob(shard.name))
