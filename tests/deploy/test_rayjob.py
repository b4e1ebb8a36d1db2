"""Quantizing as a RayJob, by option: what is written, and what the checks between objects find in it."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.cli.main import command_of
from halfbyte.deploy.checks import faults
from halfbyte.deploy.deployment import deploy
from halfbyte.deploy.errors import DeployError

from .conftest import Ground, documents, halfbyte
from .test_checks import Edit, both, drop, one, put

ON_RAY = (
    ("quantize: indexed-job", "quantize: ray-job"),
    ("images:\n", "images:\n  ray: registry.example.com/halfbyte-ray:0.2.0\n"),
)


@pytest.fixture(scope="module")
def on_ray(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    text = ground.platform.read_text()
    for old, new in ON_RAY:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "platform.yaml").write_text(text)
    deploy(ground.target, folder / "k8s", plan=ground.plan, platform=folder / "platform.yaml")
    return folder / "k8s"


def job(folder: Path) -> dict[str, Any]:
    return one(documents(folder), "RayJob", "frontier-quantize")


def groups(found: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = found["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_it_stands_for_the_parts_and_their_finish(written: Path, on_ray: Path) -> None:
    before = {(found["kind"], found["metadata"]["name"]) for found in documents(written)}
    now = {(found["kind"], found["metadata"]["name"]) for found in documents(on_ray)}
    assert before - now == {("Job", "frontier-quantize"), ("Job", "frontier-finish")}
    assert now - before == {("RayJob", "frontier-quantize"), ("NetworkPolicy", "frontier-ray")}
    assert "jobs.yaml" in yaml.safe_load((on_ray / "kustomization.yaml").read_text())["resources"]
    assert halfbyte("deploy", "--check", on_ray).returncode == 0


def test_kueue_starts_it_and_the_cluster_goes_with_it(on_ray: Path) -> None:
    found = job(on_ray)
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch-held"
    spec = found["spec"]
    assert (spec["suspend"], spec["shutdownAfterJobFinishes"]) == (True, True)
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    for group in groups(found):
        assert not [key for key in group["template"]["metadata"]["labels"] if key.startswith("kueue")]


def test_what_it_runs_is_a_command_of_ours(on_ray: Path) -> None:
    program, verb, *words = shlex.split(job(on_ray)["spec"]["entrypoint"])
    context = command_of(verb).make_context(verb, words)
    assert program == "halfbyte"
    assert context.params["ray"] == "auto"
    assert (context.params["src"], context.params["dst"]) == ("/jobs/frontier-source", "/jobs/frontier-next")


def test_its_pods_may_do_little_and_can_write_where_ray_must(on_ray: Path) -> None:
    for group in groups(job(on_ray)):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)
        assert context["allowPrivilegeEscalation"] is False
        assert pod["automountServiceAccountToken"] is False
        empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in empty}
        assert {"/tmp", "/dev/shm"} <= writable
        assert not [row for row in container["env"] if "valueFrom" in row]
        shared = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
        assert shared["medium"] == "Memory"
        assert int(group["rayStartParams"]["object-store-memory"]) < int(shared["sizeLimit"][:-2]) << 30


def test_the_head_leads_and_each_worker_does_a_part(on_ray: Path) -> None:
    head, workers = groups(job(on_ray))
    assert head["rayStartParams"]["num-cpus"] == "0"
    asked = workers["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    assert workers["rayStartParams"]["num-cpus"] == asked
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4


def test_its_pods_and_the_operator_are_let_in(on_ray: Path) -> None:
    policy = one(documents(on_ray), "NetworkPolicy", "frontier-ray")
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    for group in groups(job(on_ray)):
        marks = group["template"]["metadata"]["labels"]
        assert chosen.items() <= marks.items()
        assert "app.kubernetes.io/name" not in marks  # KubeRay's service of the head selects by its own
    among, operator = policy["spec"]["ingress"]
    assert among == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    assert operator["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kuberay-system"}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]


def test_the_readme_says_what_must_be_there(written: Path, on_ray: Path) -> None:
    text = (on_ray / "README.md").read_text()
    assert "| KubeRay | 1.2 |" in text
    assert "rayjob/NAME" in text
    assert "KubeRay" not in (written / "README.md").read_text()


def test_an_image_with_ray_is_wanted(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text(ground.platform.read_text().replace(*ON_RAY[0]))
    with pytest.raises(DeployError, match=r"images: ray is missing"):
        deploy(ground.target, tmp_path / "out", plan=ground.plan, platform=tmp_path / "platform.yaml")
    assert not (tmp_path / "out").exists()


NAME = "frontier-quantize"
CLUSTER = "spec/rayClusterSpec"
WORKERS = f"{CLUSTER}/workerGroupSpecs/0"
MISTAKES: dict[str, tuple[Edit, str]] = {
    "queue gone": (drop("LocalQueue", "batch-held"), f"RayJob {NAME}: queue batch-held is no LocalQueue"),
    "priority class gone": (drop("WorkloadPriorityClass", "batch"), f"RayJob {NAME}: priority class batch"),
    "more workers than quota": (
        both(*(put("RayJob", NAME, f"{WORKERS}/{key}", 400) for key in ("replicas", "minReplicas", "maxReplicas"))),
        f"RayJob {NAME}: its pods ask for 3208 of cpu together, ClusterQueue batch can have 1152",
    ),
    "GPUs of no quota": (
        put("RayJob", NAME, f"{WORKERS}/template/spec/containers/0/resources/limits/nvidia.com~1gpu", 16),
        "64 of nvidia.com/gpu together, ClusterQueue batch can have 48",
    ),
    "claim gone": (drop("PersistentVolumeClaim", "halfbyte-work"), f"RayJob {NAME}: claim halfbyte-work"),
    "root": (
        put("RayJob", NAME, f"{WORKERS}/template/spec/containers/0/securityContext/runAsNonRoot", False),
        f"RayJob {NAME}: container ray-worker may run as root",
    ),
    "the head's root": (
        put(
            "RayJob",
            NAME,
            f"{CLUSTER}/headGroupSpec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            False,
        ),
        f"RayJob {NAME}: container ray-head may write to its root",
    ),
    "a password": (
        put("RayJob", NAME, f"{WORKERS}/template/spec/containers/0/env", [{"name": "DB_PASSWORD", "value": "x"}]),
        "DB_PASSWORD",
    ),
    "taint that only its pods could tolerate": (
        put("ResourceFlavor", "blackwell", "spec/tolerations", []),
        "ResourceFlavor blackwell: nothing tolerates its taint",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_between_objects(on_ray: Path, mistake: str) -> None:
    edit, said = MISTAKES[mistake]
    found = documents(on_ray)
    assert faults(found) == []
    edit(found)
    assert [line for line in faults(found) if said in line], faults(found)


def test_a_job_that_is_larger_than_its_queue(written: Path) -> None:
    """The same of an Indexed Job: its pods are admitted together."""
    found = documents(written)
    one(found, "Job", NAME)["spec"] |= {"completions": 200, "parallelism": 200}
    assert f"Job {NAME}: its pods ask for 1600 of cpu together, ClusterQueue batch can have 1152" in faults(found)[0]
