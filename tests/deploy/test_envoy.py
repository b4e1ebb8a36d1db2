"""Envoy AI Gateway before the doors, by option: what is written, and what the checks between objects find in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halfbyte.deploy.checks import faults
from halfbyte.deploy.deployment import deploy
from halfbyte.deploy.envoy import RULES, ai_gateway
from halfbyte.deploy.kinds import check_shape
from halfbyte.deploy.kinds.rules import object_faults
from halfbyte.deploy.platform import Platform

from .conftest import Ground, documents, halfbyte
from .test_checks import Edit, drop, one, put

DOOR = "door-frontier"


@pytest.fixture(scope="module")
def routed(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("envoy")
    text = ground.platform.read_text()
    assert "gateway: none" in text
    (folder / "platform.yaml").write_text(text.replace("gateway: none", "gateway: envoy-ai"))
    deploy(ground.target, folder / "k8s", plan=ground.plan, platform=folder / "platform.yaml")
    return folder / "k8s"


def test_only_its_objects_are_new(written: Path, routed: Path) -> None:
    before = {(found["kind"], found["metadata"]["name"]) for found in documents(written)}
    now = {(found["kind"], found["metadata"]["name"]) for found in documents(routed)}
    assert now - before == {("AIGatewayRoute", "halfbyte"), ("AIServiceBackend", DOOR), ("Backend", DOOR)}
    assert before <= now
    assert halfbyte("deploy", "--check", routed).returncode == 0


def test_the_model_of_the_body_leads_to_its_door(routed: Path) -> None:
    found = documents(routed)
    (rule,) = one(found, "AIGatewayRoute", "halfbyte")["spec"]["rules"]
    (header,) = rule["matches"][0]["headers"]
    assert (header["name"], header["value"]) == ("x-ai-eg-model", "frontier")
    (ref,) = rule["backendRefs"]
    behind = one(found, "AIServiceBackend", ref["name"])["spec"]
    assert behind["schema"] == {"name": "OpenAI"}
    (endpoint,) = one(found, "Backend", behind["backendRef"]["name"])["spec"]["endpoints"]
    service = one(found, "Service", endpoint["fqdn"]["hostname"].partition(".")[0])
    assert endpoint["fqdn"]["hostname"] == f"{DOOR}.llm.svc.cluster.local"
    assert endpoint["fqdn"]["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_an_answer_may_take_its_time(routed: Path) -> None:
    (rule,) = one(documents(routed), "AIGatewayRoute", "halfbyte")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_the_readme_says_what_must_be_there(written: Path, routed: Path) -> None:
    text = (routed / "README.md").read_text()
    assert "| Envoy AI Gateway | 0.7 |" in text
    assert "bufferLimit" in text
    assert "Envoy" not in (written / "README.md").read_text()


def test_more_models_than_a_route_may_have(ground: Ground) -> None:
    platform = Platform.from_file(ground.platform)
    (served,) = deploy(ground.target, plan=ground.plan, platform=ground.platform).served
    many = [
        replace(served, model=served.model.model_copy(update={"name": f"m{number}"})) for number in range(RULES + 1)
    ]
    made = list(ai_gateway(platform, many))
    routes = [found for found in made if found["kind"] == "AIGatewayRoute"]
    assert [(found["metadata"]["name"], len(found["spec"]["rules"])) for found in routes] == [
        ("halfbyte", RULES),
        ("halfbyte-1", 1),
    ]
    assert [fault for found in made for fault in (check_shape(found), *object_faults(found)) if fault] == []


def rename(found: list[dict[str, Any]]) -> None:
    one(found, "AIGatewayRoute", "halfbyte")["spec"]["rules"][0]["backendRefs"][0]["name"] = "door-frontir"


def elsewhere(found: list[dict[str, Any]]) -> None:
    one(found, "Backend", DOOR)["spec"]["endpoints"][0]["fqdn"]["hostname"] = f"{DOOR}.other.svc.cluster.local"


def pool(found: list[dict[str, Any]]) -> None:
    refs = [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "frontier"}]
    one(found, "AIGatewayRoute", "halfbyte")["spec"]["rules"][0]["backendRefs"] = refs


MISTAKES: dict[str, tuple[Edit, str]] = {
    "a backend misspelt": (rename, "AIGatewayRoute halfbyte: AIServiceBackend door-frontir is not here"),
    "its backend gone": (drop("AIServiceBackend", DOOR), f"AIServiceBackend {DOOR} is not here"),
    "the address gone": (drop("Backend", DOOR), f"AIServiceBackend {DOOR}: Backend {DOOR} is not here"),
    "a pool that is not here": (pool, "InferencePool frontier is not here"),
    "another namespace": (elsewhere, f"{DOOR}.other.svc.cluster.local is no Service here"),
    "another port": (put("Backend", DOOR, "spec/endpoints/0/fqdn/port", 8080), "port 8080"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_between_objects(routed: Path, mistake: str) -> None:
    edit, said = MISTAKES[mistake]
    found = documents(routed)
    assert faults(found) == []
    edit(found)
    assert [line for line in faults(found) if said in line], faults(found)


def test_a_backend_outside_the_cluster_passes(routed: Path) -> None:
    found = documents(routed)
    one(found, "Backend", DOOR)["spec"]["endpoints"][0]["fqdn"]["hostname"] = "api.example.com"
    assert faults(found) == []
