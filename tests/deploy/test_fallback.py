"""A model whose replicas go to another pool where their own is full: quota, pods, commands, and what is refused."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from halfbyte.deploy.checks import faults
from halfbyte.deploy.deployment import deploy
from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.manifests import dumped

from .conftest import Ground, documents, halfbyte
from .test_checks import Edit, both, container, one, put

FALLBACK = ("  - name: frontier\n", "  - name: frontier\n    fallback_pools: [hopper]\n")


def platform(ground: Ground, folder: Path, *more: tuple[str, str]) -> Path:
    text = ground.platform.read_text()
    for old, new in (FALLBACK, *more):
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "platform.yaml"
    file.write_text(text)
    return file


def also(ground: Ground) -> tuple[str, ...]:
    return (f"{ground.target}={ground.on_h200}",)


@pytest.fixture(scope="module")
def fallen(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fallback")
    out = folder / "k8s"
    deploy(ground.target, out, plan=ground.plan, also=also(ground), platform=platform(ground, folder))
    return out


def rows(queue: dict[str, Any], field: str) -> dict[str, Any]:
    """Of GPUs, by flavor, in order."""
    (group,) = queue["spec"]["resourceGroups"]
    return {
        flavor["name"]: next(row for row in flavor["resources"] if row["name"] == "nvidia.com/gpu").get(field)
        for flavor in group["flavors"]
    }


def test_the_queue_names_both_flavors_in_order(fallen: Path) -> None:
    found = documents(fallen)
    queue = one(found, "ClusterQueue", "frontier")
    assert rows(queue, "nominalQuota") == {"blackwell": 16, "hopper": 0}
    assert rows(queue, "borrowingLimit") == {"blackwell": 32, "hopper": 32}
    assert list(rows(queue, "nominalQuota")) == ["blackwell", "hopper"]
    ways = queue["spec"]["flavorFungibility"]
    assert ways == {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"}
    assert faults(found) == []
    assert halfbyte("deploy", "--check", fallen).returncode == 0


def test_both_pools_are_one_cohort_and_whole(fallen: Path) -> None:
    found = documents(fallen)
    (cohort,) = (each for each in found if each["kind"] == "Cohort")
    owned = rows(one(found, "ClusterQueue", "frontier"), "nominalQuota")
    lent = rows(cohort, "nominalQuota")
    assert {flavor: owned[flavor] + lent[flavor] for flavor in lent} == {"blackwell": 48, "hopper": 32}
    assert {each["spec"]["cohortName"] for each in found if each["kind"] == "ClusterQueue"} == {"blackwell"}


def test_the_autoscaler_may_fill_both(fallen: Path) -> None:
    assert one(documents(fallen), "ScaledObject", "frontier")["spec"]["maxReplicaCount"] == 10


def test_pods_tolerate_both_and_pin_neither(fallen: Path) -> None:
    pod = one(documents(fallen), "Deployment", "frontier")["spec"]["template"]["spec"]
    assert [row["value"] for row in pod["tolerations"]] == ["blackwell", "hopper"]
    assert "nodeSelector" not in pod
    assert "affinity" not in pod


def test_pods_ask_for_what_the_smaller_nodes_have(ground: Ground, tmp_path: Path) -> None:
    hopper = "nodes: 4\n    gpus_per_node: 8\n    cpus_per_node: "
    file = platform(ground, tmp_path, (f"{hopper}192", f"{hopper}96"))
    deploy(ground.target, tmp_path / "out", plan=ground.plan, also=also(ground), platform=file)
    needs = container(one(documents(tmp_path / "out"), "Deployment", "frontier"))["resources"]["requests"]
    assert needs["cpu"] == str(96 * 15 // 16)


@pytest.mark.parametrize(("capability", "cache"), [("10.0", "fp8_e4m3"), ("9.0", "bfloat16"), ("8.0", None)])
def test_a_container_starts_by_the_gpu_that_it_finds(
    fallen: Path, tmp_path: Path, capability: str, cache: str | None
) -> None:
    """Run by a real shell, with an nvidia-smi that says so and a server that prints its arguments."""
    for name, text in (
        ("nvidia-smi", f'[ "$1" = --query-gpu=compute_cap ] && echo {capability}'),
        ("python3", 'printf "%s\\n" "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    command = container(one(documents(fallen), "Deployment", "frontier"))["command"]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    words = done.stdout.split("\n")
    if cache is None:
        assert done.returncode == 1
        assert "only for 10.0 and 9.0" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert words[words.index("--kv-cache-dtype") + 1] == cache
        assert words[words.index("--port") + 1] == "30000"


def test_the_same_gpu_elsewhere_needs_no_other_plan(ground: Ground, written: Path, tmp_path: Path) -> None:
    file = platform(ground, tmp_path, ("    gpu: h200\n", "    gpu: b200\n"))
    deploy(ground.target, tmp_path / "out", plan=ground.plan, platform=file)
    now, before = (container(one(documents(out), "Deployment", "frontier")) for out in (tmp_path / "out", written))
    assert now["command"] == before["command"]


def test_groups_start_by_their_gpu_too(ground: Ground, tmp_path: Path) -> None:
    more = (f"{ground.target}={ground.on_h200_16}",)
    out = tmp_path / "out"
    deploy(ground.target, out, plan=ground.plan16, also=more, platform=platform(ground, tmp_path))
    workers = one(documents(out), "LeaderWorkerSet", "frontier")["spec"]["leaderWorkerTemplate"]
    for name in ("leaderTemplate", "workerTemplate"):
        shell, flag, script = workers[name]["spec"]["containers"][0]["command"]
        assert (shell, flag) == ("/bin/sh", "-c")
        starts = script.replace("\\\n", "").split("exec ")[1:]
        assert len(starts) == 2
        assert all("$(LWS_LEADER_ADDRESS):20000" in shlex.split(each.partition(";;")[0]) for each in starts)
        assert "$(nvidia-smi" not in script  # which Kubernetes would read as a variable


def test_without_a_fallback_nothing_is_new(ground: Ground, written: Path, tmp_path: Path) -> None:
    file = platform(ground, tmp_path, ("fallback_pools: [hopper]", "fallback_pools: []"))
    done = halfbyte(*ground.words("--diff", written, platform=file))
    assert (done.returncode, done.stdout) == (0, "")


REFUSED: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    "no such pool": ((("[hopper]", "[nowhere]"),), "names pool nowhere"),
    "twice": ((("[hopper]", "[hopper, hopper]"),), "names pool hopper twice"),
    "its own by name": ((("[hopper]", "[hopper]\n    pool: hopper"),), "names pool hopper twice"),
    "its own by the plan": ((("[hopper]", "[blackwell]"),), "from pool blackwell to itself"),
    "another kind of node": (
        (("nodes: 4\n    gpus_per_node: 8", "nodes: 8\n    gpus_per_node: 4"),),
        "nodes of a replica",
    ),
    "more than all hold": ((("min_replicas: 2", "min_replicas: 2\n    max_replicas: 11"),), "holds 10"),
    "least in the other": ((("min_replicas: 2", "min_replicas: 7"),), "holds 6"),
    "a GPU of no kernels": ((("    gpu: h200\n", "    gpu: mi300x\n"),), "of mi300x, but the plan is for b200"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_platform_that_cannot_fall_back_is_refused(ground: Ground, tmp_path: Path, mistake: str) -> None:
    edits, said = REFUSED[mistake]
    file = platform(ground, tmp_path, *edits)
    with pytest.raises(DeployError) as refused:
        deploy(ground.target, tmp_path / "out", plan=ground.plan, also=also(ground), platform=file)
    assert said in refused.value.message
    assert not (tmp_path / "out").exists()


def test_another_gpu_wants_a_plan_of_its_own(ground: Ground, tmp_path: Path) -> None:
    done = halfbyte(*ground.words("-o", tmp_path / "out", platform=platform(ground, tmp_path)))
    assert done.returncode == 1
    assert "falls back to pool hopper of h200, but the plan is for b200" in done.stderr
    assert "--also TARGET=PLAN" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_plan_of_no_pool_is_refused(ground: Ground, tmp_path: Path) -> None:
    for more, said in (
        (also(ground), "the plan for h200 is for none of model frontier's pools"),
        ((f"{ground.target}={ground.plan16}",), "2 plans for b200"),
    ):
        with pytest.raises(DeployError, match=said):
            deploy(ground.target, tmp_path / "out", plan=ground.plan, also=more, platform=ground.platform)


PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "does not fit": ({"fits": False, "problems": ["too large"]}, "does not fit: too large"),
    "another checkpoint": ({"checkpoint_bytes": 5}, "5 bytes"),
    "another engine": ({"deployment": {"engine": "vllm"}}, "engine sglang, there vllm"),
    "more GPUs": ({"deployment": {"gpus": 16}}, "GPUs of a replica 8, there 16"),
    "less context": ({"deployment": {"context": 4096}}, "context 8192, there 4096"),
    "no kernels": ({"deployment": {"gpu": "a100"}}, "a100 (compute 8.0): no engine has"),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_that_cannot_stand_in_is_refused(ground: Ground, tmp_path: Path, case: str) -> None:
    change, said = PLANS[case]
    plan = json.loads(ground.on_h200.read_text())
    deployment = plan["deployment"] | change.get("deployment", {})
    (tmp_path / "plan.json").write_text(json.dumps(plan | change | {"deployment": deployment}))
    gpu, out = deployment["gpu"], tmp_path / "out"
    file = platform(ground, tmp_path, ("    gpu: h200\n", f"    gpu: {gpu}\n"))
    done = halfbyte(*ground.words("--also", f"{ground.target}={tmp_path / 'plan.json'}", "-o", out, platform=file))
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_kserve_has_one_parallelism(ground: Ground, tmp_path: Path) -> None:
    plan = json.loads(ground.on_h200.read_text())
    plan["deployment"] |= {"tp": 8, "pp": 1}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    more = (f"{ground.target}={tmp_path / 'plan.json'}",)
    file = platform(ground, tmp_path, ("serving: plain", "serving: kserve"))
    with pytest.raises(DeployError, match="KServe has one"):
        deploy(ground.target, tmp_path / "out", plan=ground.plan, also=more, platform=file)


def test_gpus_that_cannot_be_told_apart_start_alike(ground: Ground, tmp_path: Path) -> None:
    """H100 and H200 are both 9.0: with other flags a pod could not know which are its own."""
    plan = json.loads(ground.on_h200.read_text())
    plan["deployment"]["gpu"] = "h100"
    plan["engine_flags"][plan["engine_flags"].index("--mem-fraction-static") + 1] = "0.5"
    (tmp_path / "h100.json").write_text(json.dumps(plan))
    file = platform(ground, tmp_path, ("    gpu: b200\n", "    gpu: h100\n"))
    more = (f"{ground.target}={tmp_path / 'h100.json'}",)
    file.write_text(file.read_text().replace("[hopper]", "[blackwell]"))
    with pytest.raises(DeployError, match=r"0\.5.*cannot tell h200 from h100"):
        deploy(ground.target, tmp_path / "out", plan=ground.on_h200, also=more, platform=file)


def test_a_group_wants_its_level_in_both(ground: Ground, tmp_path: Path) -> None:
    more = (f"{ground.target}={ground.on_h200_16}",)
    level = "    nodes: 6\n", "    nodes: 6\n    topology: [example.com/rack, kubernetes.io/hostname]\n"
    file = platform(ground, tmp_path, level)
    with pytest.raises(DeployError, match="no level of pool hopper's topology"):
        deploy(ground.target, tmp_path / "out", plan=ground.plan16, also=more, platform=file)


def test_explain_names_the_flavor(ground: Ground, tmp_path: Path) -> None:
    words = ground.words("--also", also(ground)[0], "--explain", "--json", platform=platform(ground, tmp_path))
    found = json.loads(halfbyte(*words).stdout)["replicas"]
    assert [row["flavor"] for row in found] == ["blackwell"] * 6 + ["hopper"] * 4 + [None]
    assert [(row["own_gpus"], row["borrowed_gpus"]) for row in found[:3]] == [(8, 0), (8, 0), (0, 8)]
    for flavor in ("blackwell", "hopper"):
        assert f"8 GPUs of flavor {flavor} short" in found[-1]["waits"]


def test_a_day_counts_each_gpu_at_its_price(ground: Ground, tmp_path: Path) -> None:
    words = ground.words("--also", also(ground)[0], "--simulate", 1e9, "--json", platform=platform(ground, tmp_path))
    last = json.loads(halfbyte(*words).stdout)["fleets"][-1]
    assert last["fleet"] == "10, fixed"
    assert last["gpu_hours"] == 10 * 8 * 24
    assert last["usd"] == pytest.approx((6 * 4.0 + 4 * 2.5) * 8 * 24)


def test_the_readme_says_where_replicas_go(fallen: Path) -> None:
    text = (fallen / "README.md").read_text()
    assert "blackwell (6 x 8 b200), then hopper (4 x 8 h200)" in text
    assert "frontier on h200, where its container finds one:" in text
    assert "then in hopper; one that runs stays" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    ("told", "dollars"),
    [
        ({"blackwell": ("leader", 24), "hopper": ("leader", 8)}, 24 * 4.0 + 8 * 2.5),
        ({"blackwell": ("leader", 16), "hopper": ("leader", 0)}, 16 * 4.0),
        ({"blackwell": ("leader", 16)}, 16 * 4.0),
        ({}, 32 * 4.0),
    ],
)
def test_cost_is_each_pool_s_if_kueue_tells(
    fallen: Path, tmp_path: Path, told: dict[str, tuple[str, int]], dollars: float
) -> None:
    """A follower of Kueue that reports the same counts once."""
    queue = 'cluster_queue="frontier",resource="nvidia.com/gpu"'
    series = [
        (f'kueue_cluster_queue_resource_usage{{{queue},flavor="{flavor}",replica_role="{role}"}}', gpus)
        for flavor, (leader, gpus) in told.items()
        for role in (leader, "follower")
    ]
    pod = 'namespace="llm",pod="frontier-5d-{}",resource="nvidia_com_gpu"'
    series += [(f"kube_pod_container_resource_requests{{{pod.format(number)}}}", 8) for number in range(4)]
    test = {
        "rule_files": ["rules.yaml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": f"{value}x10"} for name, value in series],
                "promql_expr_test": [
                    {
                        "expr": 'model:halfbyte_pool_cost_usd:per_hour{model="frontier"}',
                        "eval_time": "5m",
                        "exp_samples": [
                            {"labels": 'model:halfbyte_pool_cost_usd:per_hour{model="frontier"}', "value": dollars}
                        ],
                    }
                ],
            }
        ],
    }
    shutil.copy(fallen / "rule-tests/rules.yaml", tmp_path)
    (tmp_path / "tests.yaml").write_text(dumped([test]))
    done = subprocess.run(["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_every_alert_fires_and_is_silent_with_two_pools(fallen: Path) -> None:
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run(["promtool", *words], cwd=fallen / "rule-tests", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


POD = "spec/template/spec"
LABEL = "nvidia.com~1gpu.product"


def affinity(operator: str, *values: str) -> dict[str, Any]:
    row = {"key": "nvidia.com/gpu.product", "operator": operator} | ({"values": list(values)} if values else {})
    terms = {"nodeSelectorTerms": [{"matchExpressions": [row]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def no_hopper(found: list[dict[str, Any]]) -> None:
    for flavor in one(found, "Cohort", "blackwell")["spec"]["resourceGroups"][0]["flavors"]:
        if flavor["name"] == "hopper":
            flavor["resources"][2]["nominalQuota"] = 0


def less_hopper(found: list[dict[str, Any]]) -> None:
    one(found, "ClusterQueue", "frontier")["spec"]["resourceGroups"][0]["flavors"][1]["resources"][2][
        "borrowingLimit"
    ] = 12


MISTAKES: dict[str, tuple[Edit, str]] = {
    "the first pool is pinned": (
        put("Deployment", "frontier", f"{POD}/nodeSelector/{LABEL}", "NVIDIA-B200"),
        "Deployment frontier: template has nodeSelector nvidia.com/gpu.product=NVIDIA-B200, the flavor NVIDIA-H200, "
        "so Kueue never uses flavor hopper",
    ),
    "by affinity": (
        put("Deployment", "frontier", f"{POD}/affinity", affinity("In", "NVIDIA-B200")),
        "has a nodeAffinity that no node of the flavor meets, so Kueue never uses flavor hopper",
    ),
    "by an affinity against it": (
        put("Deployment", "frontier", f"{POD}/affinity", affinity("NotIn", "NVIDIA-H200")),
        "never uses flavor hopper",
    ),
    "no level there": (
        put(
            "Deployment",
            "frontier",
            "spec/template/metadata/annotations",
            {"kueue.x-k8s.io/podset-required-topology": "rack"},
        ),
        "asks for the topology rack, and the flavor has none, so Kueue never uses flavor hopper",
    ),
    "nobody tolerates the second": (
        both(
            put("ResourceFlavor", "hopper", "spec/tolerations", []),
            put("Deployment", "frontier", f"{POD}/tolerations", []),
        ),
        "ResourceFlavor hopper: nothing tolerates its taint",
    ),
    "no quota of the second": (
        no_hopper,
        "ClusterQueue frontier: flavor hopper: no quota of nvidia.com/gpu here, and its cohort blackwell has none",
    ),
    "less of it than the autoscaler asks": (
        less_hopper,
        "10 replicas of 8 GPUs need 80, ClusterQueue frontier allows 56",
    ),
    "no such flavor": (
        lambda found: found.remove(one(found, "ResourceFlavor", "hopper")),
        "ClusterQueue frontier: flavor hopper is no ResourceFlavor here",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_between_objects(fallen: Path, mistake: str) -> None:
    edit, said = MISTAKES[mistake]
    found = documents(fallen)
    edit(found)
    assert [line for line in faults(found) if said in line], faults(found)


@pytest.mark.parametrize(
    "edit",
    [
        put("Deployment", "frontier", f"{POD}/nodeSelector", {"disk": "fast"}),
        put("Deployment", "frontier", f"{POD}/affinity", affinity("In", "NVIDIA-B200", "NVIDIA-H200")),
        put("Deployment", "frontier", f"{POD}/affinity", affinity("Exists")),
    ],
)
def test_what_leaves_both_open_passes(fallen: Path, edit: Edit) -> None:
    found = documents(fallen)
    edit(found)
    assert faults(found) == []


def test_models_of_both_pools_share_their_cohort(ground: Ground, tmp_path: Path) -> None:
    """A second model at home in the pool that the first falls back to keeps its floor there."""
    second = tmp_path / "second-nvfp4"
    shutil.copytree(ground.target, second)
    text = platform(ground, tmp_path).read_text()
    price = "{prompt: 0.6, cached: 0.11, output: 2.2, reasoning: 2.2}"
    text = text.replace(
        "\ntenants:", "\n  - {name: small, checkpoint: second-nvfp4, pool: hopper, min_replicas: 1}\n\ntenants:", 1
    ).replace(f"  frontier: {price}", f"  frontier: {price}\n  small: {price}")
    (tmp_path / "platform.yaml").write_text(text)
    deploy(
        ground.target,
        tmp_path / "out",
        plan=ground.plan,
        also=(*also(ground), f"{second}={ground.on_h200}"),
        platform=tmp_path / "platform.yaml",
    )
    found = documents(tmp_path / "out")
    assert rows(one(found, "Cohort", "blackwell"), "nominalQuota") == {"blackwell": 32, "hopper": 24}
    assert rows(one(found, "ClusterQueue", "small"), "nominalQuota") == {"hopper": 8}
    assert rows(one(found, "ClusterQueue", "small"), "lendingLimit") == {"hopper": 0}
    assert one(found, "ClusterQueue", "small")["spec"]["cohortName"] == "blackwell"
