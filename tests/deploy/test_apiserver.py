"""What a real API server says: all that we write is accepted, strictly; of the mistakes it refuses those it can know.

Without a server its tests are skipped, each by name, and the reason says what is missing. Kinds of Kubernetes itself
are no matter of definitions: kubernetes-validate has their schemas, of every version.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from halfbyte.deploy.deployment import deploy
from halfbyte.deploy.kinds import KINDS

from .apiserver.definitions import CUSTOM
from .apiserver.found import Found, find
from .apiserver.server import ApiServer, running
from .conftest import Ground, documents
from .test_mistakes import FIXTURES, MISTAKES, RIGHT, called, edits, faults

OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes whose schemas all we write must fit."""

UNDEFINED = {version.partition("/")[0] for (version, _), place in KINDS.items() if place.endswith((".ray", ".envoy"))}
"""Groups of which no definition is at hand: their models are ours."""

OPTIONS = (
    ("none", "plain", "indexed-job", "[]"),
    ("gateway-api", "plain", "ray-job", "[hopper]"),
    ("inference-pool", "kserve", "indexed-job", "[hopper]"),
    ("envoy-ai", "plain", "indexed-job", "[]"),
)

BEYOND = {
    "cohort-lends-without-parent",
    "lws-name-too-long",
    "lws-queue-label-in-template",
    "lws-size-zero",
    "queue-lends-more-than-it-has",
    "queue-no-namespace",
    "queue-quota-negative",
    "queue-resource-twice",
    "queue-resources-order",
    "rule-record-and-alert",
    "scaled-object-fallback-over-max",
    "scaled-object-no-query",
    "scaled-object-window",
}
"""Mistakes that the server accepts: webhooks refuse them, or a controller stands still. They are ours to find."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    found = find()
    if not isinstance(found, Found):
        pytest.skip(found)
    with running(found) as ready:
        yield ready


CHOICES = [(gpus, *options) for gpus in (8, 16) for options in OPTIONS]


@pytest.fixture(scope="module", params=CHOICES, ids=lambda choice: "-".join(map(str, choice)))
def objects(request: pytest.FixtureRequest, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every object that one choice of options writes."""
    gpus, gateway, serving, quantize, fallback = request.param
    folder = tmp_path_factory.mktemp("choice")
    text = ground.platform.read_text("utf-8")
    for old, new in (
        ("gateway: none", f"gateway: {gateway}"),
        ("serving: plain", f"serving: {serving}"),
        ("quantize: indexed-job", f"quantize: {quantize}"),
        ("  - name: frontier\n", f"  - name: frontier\n    fallback_pools: {fallback}\n"),
        ("images:\n", "images:\n  ray: registry.example.com/halfbyte-ray:0.2.0\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "platform.yaml").write_text(text, "utf-8")
    plan, other = (ground.plan, ground.on_h200) if gpus == 8 else (ground.plan16, ground.on_h200_16)
    also = () if fallback == "[]" else (f"{ground.target}={other}",)
    deploy(ground.target, folder / "out", plan=plan, also=also, platform=folder / "platform.yaml")
    return documents(folder / "out")


def is_custom(document: dict[str, Any]) -> bool:
    return (document["apiVersion"].rpartition("/")[0], document["kind"]) in CUSTOM


def test_what_we_write_is_accepted(server: ApiServer, objects: list[dict[str, Any]]) -> None:
    ours = [one for one in objects if is_custom(one)]
    assert len(ours) >= 15
    verdicts = [(one["kind"], one["metadata"]["name"], server.apply(one)) for one in ours]
    assert [said for said in verdicts if not said[2].accepted or said[2].warning] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kinds_of_kubernetes_fit_their_schema(objects: list[dict[str, Any]], version: str) -> None:
    core = [one for one in objects if not is_custom(one) and one["apiVersion"].partition("/")[0] not in UNDEFINED]
    assert len(core) >= 20
    core += [pod for one in objects if one["kind"] == "RayJob" for pod in pods_of_ray(one)]
    for one in core:
        kubernetes_validate.validate(one, version, strict=True)


def pods_of_ray(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """No schema of a RayJob is at hand, but its pods have the one of every pod."""
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"} | template["metadata"]} | {
            "spec": template["spec"]
        }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_schema_refuses(version: str) -> None:
    wrong = read(FIXTURES / "mistakes/deployment-grace-in-container.yaml")
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSeconds"):
        kubernetes_validate.validate(wrong, version, strict=True)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def custom(paths: list[Path]) -> list[Path]:
    """Those of kinds that have a definition."""
    return [path for path in paths if is_custom(read(path))]


def test_every_kind_has_a_right_object() -> None:
    assert {read(path)["kind"] for path in custom(RIGHT)} == {kind for _, kind in CUSTOM}


@pytest.mark.parametrize("path", custom(RIGHT), ids=called)
def test_what_is_right_is_accepted(server: ApiServer, path: Path) -> None:
    verdict = server.apply(read(path))
    assert (verdict.accepted, verdict.message, verdict.warning) == (True, "", "")


@pytest.mark.parametrize("path", [path for path in custom(MISTAKES) if path.stem not in BEYOND], ids=called)
def test_a_mistake_is_refused(server: ApiServer, path: Path) -> None:
    verdict = server.apply(read(path))
    assert not verdict.accepted
    assert verdict.message


@pytest.mark.parametrize("path", [path for path in custom(MISTAKES) if path.stem in BEYOND], ids=called)
def test_what_the_server_cannot_know_is_accepted(server: ApiServer, path: Path) -> None:
    """So that the list above stays the truth: a rule that a definition gains leaves it."""
    assert server.apply(read(path)).accepted


def test_an_old_version_is_said(server: ApiServer) -> None:
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ClusterQueue", "metadata": {"name": "a"}}
    assert "deprecated" in server.apply(queue).warning


@pytest.mark.slow
@pytest.mark.parametrize("path", custom(RIGHT), ids=called)
def test_what_the_server_refuses_is_refused_here(server: ApiServer, path: Path) -> None:
    """Every single edit of a right object: with no server at hand, `--check` finds the same."""
    missed = [name for name, edited in edits(read(path)) if not server.apply(edited).accepted and not faults(edited)]
    assert missed == []
