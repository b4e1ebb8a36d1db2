"""`halfbyte deploy` as users call it: what it writes, what it refuses, and that nothing is left where it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.deploy.deployment import deploy
from halfbyte.deploy.errors import DeployError

from .conftest import Ground, documents, halfbyte


def of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [one for one in documents(folder) if one["kind"] == kind]


def pods(folder: Path) -> list[dict[str, Any]]:
    """Every pod spec, wherever it stands."""
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("containers"), list):
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(documents(folder))
    return found


def test_the_kustomization_lists_every_manifest(written: Path) -> None:
    listed = yaml.safe_load((written / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in written.glob("*.yaml")} - {"kustomization.yaml"} == set(listed)
    assert {path.name for path in written.iterdir()} - set(listed) == {"kustomization.yaml", "README.md", "rule-tests"}


def test_two_runs_are_equal_and_name_no_path_of_this_machine(ground: Ground, written: Path, tmp_path: Path) -> None:
    assert halfbyte(*ground.words("-o", tmp_path / "again")).returncode == 0
    for path in sorted(written.rglob("*")):
        if path.is_file():
            text = path.read_text()
            assert text == (tmp_path / "again" / path.relative_to(written)).read_text()
            assert str(ground.target.parent) not in text
    assert halfbyte("deploy", "--check", written).returncode == 0
    assert halfbyte(*ground.words("--diff", written)).stdout == ""


def test_a_difference_is_told(ground: Ground, written: Path, tmp_path: Path) -> None:
    edited = tmp_path / "k8s"
    shutil.copytree(written, edited)
    (edited / "kueue.yaml").write_text((edited / "kueue.yaml").read_text().replace("value: 10000", "value: 9000"))
    done = halfbyte(*ground.words("--diff", edited))
    assert done.returncode == 1
    assert "-value: 9000" in done.stdout
    assert "+value: 10000" in done.stdout


def test_every_container_may_do_little(written: Path, written16: Path) -> None:
    for folder in (written, written16):
        for pod in pods(folder):
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["runAsNonRoot"] is True
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False


def test_sixteen_gpus_are_a_leader_and_a_worker(written16: Path) -> None:
    (one,) = of(written16, "LeaderWorkerSet")
    template = one["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    for name in ("leaderTemplate", "workerTemplate"):
        assert "kueue.x-k8s.io/queue-name" not in template[name]["metadata"]["labels"]
        (container,) = template[name]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
        assert "$(LWS_LEADER_ADDRESS):20000" in container["command"]
    assert one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "frontier"
    (scaler,) = of(written16, "ScaledObject")
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "LeaderWorkerSet"
    assert scaler["spec"]["maxReplicaCount"] == 3  # six nodes


def test_quota_is_the_floor_and_the_pool_is_whole(written: Path) -> None:
    def gpus(queue: dict[str, Any], field: str = "nominalQuota") -> int:
        rows = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
        return int(next(row[field] for row in rows if row["name"] == "nvidia.com/gpu"))

    queues = {one["metadata"]["name"]: one for one in of(written, "ClusterQueue")}
    cohorts = {one["metadata"]["name"]: one for one in of(written, "Cohort")}
    assert gpus(queues["frontier"]) == 16
    assert gpus(queues["frontier"], "borrowingLimit") == 32
    assert gpus(queues["batch"]) == 0
    assert gpus(queues["frontier"]) + gpus(cohorts["blackwell"]) == 48
    assert queues["frontier"]["spec"]["preemption"]["reclaimWithinCohort"] == "Any"


def test_alerts_and_triggers(written: Path) -> None:
    (rule,) = of(written, "PrometheusRule")
    rules = [one for group in rule["spec"]["groups"] for one in group["rules"]]
    for one in rules:
        if "record" in one:
            assert len(one["record"].split(":")) == 3
        else:
            assert one["labels"]["severity"]
            assert one["annotations"]["summary"]
            assert "for" in one or "Burn" in one["alert"]
    for scaler in of(written, "ScaledObject"):
        assert [trigger["type"] for trigger in scaler["spec"]["triggers"]] == ["prometheus", "prometheus"]


def test_dashboards(written: Path) -> None:
    boards = [one for one in of(written, "ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(boards) == 2
    for one in boards:
        for name, text in one["data"].items():
            assert name.endswith(".json")
            board = json.loads(text)
            assert board["uid"]
            assert board["schemaVersion"] >= 36
            assert "$__rate_interval" in text


def test_no_gate_says_so(ground: Ground, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(ground.target, bare)
    (bare / "gate.json").unlink()
    words = ["deploy", bare, "--plan", ground.plan, "--platform", ground.platform, "-o", tmp_path / "out"]
    refused = halfbyte(*words)
    assert refused.returncode == 1
    assert "no gate decision" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert halfbyte(*words, "--no-gate").returncode == 0
    (served,) = of(tmp_path / "out", "Deployment")[:1]
    notes = [one["metadata"].get("annotations", {}) for one in of(tmp_path / "out", "Deployment")]
    assert {note.get("halfbyte.dev/gate") for note in notes} >= {"no-gate"}
    assert served["metadata"]["name"] == "frontier"


def _decided(edit: Any) -> Any:
    def change(target: Path) -> None:
        decision = json.loads((target / "gate.json").read_text())
        edit(decision)
        (target / "gate.json").write_text(json.dumps(decision))

    return change


def _other_config(target: Path) -> None:
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))


def _longer(target: Path) -> None:
    with open(next(target.glob("*.safetensors")), "ab") as shard:
        shard.write(b"0")


@pytest.mark.parametrize(
    "change",
    [
        _decided(lambda decision: decision.update(decision="refused")),
        _decided(lambda decision: decision.update(decision="undecided")),
        _decided(lambda decision: decision["checkpoint"].update(fingerprint="0" * 64)),
        _decided(lambda decision: decision["checkpoint"]["shards"][0].update(header_sha256="0" * 64)),
        _decided(lambda decision: decision["checkpoint"]["shards"][0].update(stated_sha256="0" * 64)),
        _decided(lambda decision: decision["checkpoint"]["files"].update({"config.json": "0" * 64})),
        _decided(lambda decision: decision.pop("policy")),
        _other_config,
        _longer,
        lambda target: (target / "gate.json").write_text("{"),
    ],
)
def test_another_decision_is_refused(ground: Ground, tmp_path: Path, change: Any) -> None:
    target = tmp_path / "t"
    shutil.copytree(ground.target, target)
    change(target)
    with pytest.raises(DeployError) as refused:
        deploy(target, tmp_path / "out", plan=ground.plan, platform=ground.platform)
    assert refused.value.exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("namespace: llm", "namespace: LLM", "namespace"),
        ("name: blackwell", "name: black_well", "pools.0.name"),
        ("name: frontier", f"name: {'f' * 60}", "models.0.name"),
        ("nodes: 6", "nodes: -6", "pools.0.nodes"),
        ("nodes: 6", "nodes: six", "pools.0.nodes"),
        ("nodes: 6", "nodes: 6.5", "pools.0.nodes"),
        ("nodes: 6", "nodez: 6", "pools.0.nodez"),
        ("usd_per_gpu_hour: 4.0", "usd_per_gpu_hour: -4.0", "usd_per_gpu_hour"),
        ("usd_per_gpu_hour: 4.0", "usd_per_gpu_hour: .nan", "usd_per_gpu_hour"),
        ("gpu: b200", "gpu: b2000", "pools.0.gpu"),
        ("min_replicas: 2", "min_replicas: 0", "min_replicas"),
        ("min_replicas: 2", "min_replicas: 60", "holds 6"),
        ("cluster:", "clusters:", "clusters"),
        ("min_replicas: 2", "min_replicas: 2\n    max_replicas: 1", "max_replicas 1"),
        ("min_replicas: 2", "min_replicas: 2\n    max_replicas: 7", "holds 6"),
        ("models: [frontier]", "models: [nobody]", "nobody"),
        ("frontier: {prompt", "other: {prompt", "prices"),
        ("output: 2.2", "output: two", "output"),
        ("queue_seconds: 20.0", "queue_seconds: 0", "queue_seconds"),
        ("version: 1", "version: 2", "version"),
        ("wait_for_pods_ready_seconds: null", "wait_for_pods_ready_seconds: 300", "WaitForPodsReady"),
        ("p99_answer_seconds: 600.0", "p99_answer_seconds: -1", "p99_answer_seconds"),
        ("key: halfbyte.dev/pool, value: blackwell", "key: 'a b', value: blackwell", "taint.key"),
        ("prometheus: http://", "prometheus: ftp://", "prometheus"),
        ("pools:", "pools: []\nunused:", "pools"),
    ],
)
def test_a_platform_that_cannot_be_is_one_error(ground: Ground, tmp_path: Path, old: str, new: str, said: str) -> None:
    text = ground.platform.read_text()
    assert old in text
    (tmp_path / "platform.yaml").write_text(text.replace(old, new, 1 if "models:" not in old else -1))
    with pytest.raises(DeployError) as refused:
        deploy(ground.target, tmp_path / "out", plan=ground.plan, platform=tmp_path / "platform.yaml")
    assert refused.value.exit_code == 1
    assert said in refused.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fits": False, "problems": ["too large"]}, "does not fit"),
        ({"model_type": "qwen3_moe"}, "qwen3_moe"),
        ({"checkpoint_bytes": 5}, "5 bytes"),
    ],
)
def test_a_plan_of_something_else_is_refused(ground: Ground, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(json.loads(ground.plan.read_text()) | change))
    with pytest.raises(DeployError, match=said):
        deploy(ground.target, tmp_path / "out", plan=plan, platform=ground.platform)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_not_written_over(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = halfbyte(*ground.words("-o", tmp_path))
    assert done.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert halfbyte(*ground.words("-o", ground.target)).returncode == 1


def test_explain_names_the_quota(ground: Ground) -> None:
    done = halfbyte(*ground.words("--explain", "--json"))
    assert done.returncode == 0
    rows = json.loads(done.stdout)["replicas"]
    assert [row["waits"] for row in rows[:-1]] == [None] * 6
    assert "8 GPUs of flavor blackwell short" in rows[-1]["waits"]


def test_a_disruption_budget_only_for_two(ground: Ground, tmp_path: Path) -> None:
    platform = tmp_path / "platform.yaml"
    platform.write_text(ground.platform.read_text().replace("min_replicas: 2", "min_replicas: 1"))
    assert halfbyte(*ground.words("-o", tmp_path / "out", platform=platform)).returncode == 0
    assert "frontier" not in {one["metadata"]["name"] for one in of(tmp_path / "out", "PodDisruptionBudget")}


EXAMPLE = Path(__file__).parents[2] / "examples/platform"


def test_the_example_s_manifests_are_sound() -> None:
    done = halfbyte("deploy", "--check", EXAMPLE / "manifests", "--json")
    assert json.loads(done.stdout)["ok"] is True
    names = {one["metadata"]["name"] for one in of(EXAMPLE / "manifests", "Deployment")}
    assert names >= {"glm-5-2", "small", "door-glm-5-2", "door-small"}


@pytest.mark.slow
def test_the_example_s_manifests_are_what_its_script_writes(tmp_path: Path) -> None:
    """GLM-5.2's headers at full size: half a minute."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1] / "tests")}
    subprocess.run([sys.executable, EXAMPLE / "make.py", tmp_path / "out"], env=environment, check=True)
    for path in sorted((EXAMPLE / "manifests").rglob("*")):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(EXAMPLE / "manifests")).read_text() == path.read_text(), path
