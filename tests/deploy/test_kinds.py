"""Shapes of kinds: every model can be built, and a fault is one line that names kind, object, field and value."""

import subprocess
import sys
from typing import Any

import pytest

from halfbyte.deploy.kinds import KINDS, check_shape, model_for

QUEUE = "kueue.x-k8s.io/v1beta2"


def an_object(api_version: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **more}


@pytest.mark.parametrize(("api_version", "kind"), KINDS)
def test_every_model_builds_and_knows_its_kind(api_version: str, kind: str) -> None:
    model = model_for(api_version, kind)
    assert model is not None
    properties = model.model_json_schema()["properties"]
    assert properties["apiVersion"]["const"] == api_version
    assert properties["kind"]["const"] == kind
    fault = check_shape(an_object(api_version, kind, unheard=1))
    assert fault is not None
    assert fault.startswith(f"{kind} a: ")


TEMPLATE = {"spec": {"containers": [{"name": "engine", "imagee": "x"}]}}


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (an_object("kueue.x-k8s.io/v1beta1", "ClusterQueue"), "apiVersion: wanted 'kueue.x-k8s.io/v1beta2'"),
        (an_object("extensions/v1beta1", "Deployment"), "apiVersion: wanted 'apps/v1'"),
        (an_object("v1", "Job"), "apiVersion: wanted 'batch/v1'"),
        (an_object(QUEUE, "Clusterqueue"), "did you mean 'ClusterQueue'?"),
        (
            an_object(QUEUE, "ClusterQueue", spec={"cohort": "x"}),
            "spec.cohort: unknown setting ('cohort'); did you mean",
        ),
        (an_object("v1", "ConfigMap", data={"a": 1}), "data.a: Input should be a valid string ('1')"),
        (
            an_object("apps/v1", "Deployment", spec={"replicas": "2", "selector": {}, "template": TEMPLATE}),
            "spec.template.spec.containers.0.imagee: unknown setting",
        ),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_b"}}, "metadata.name: "),
        ({"apiVersion": "v1", "kind": "ConfigMap"}, "metadata.name: wanted a name"),
        ({"kind": "ConfigMap"}, "apiVersion: wanted a string"),
    ],
)
def test_a_fault_is_said_in_one_line(document: dict[str, Any], fault: str) -> None:
    said = check_shape(document)
    assert said is not None
    assert fault in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "document",
    [
        an_object("apps/v1", "StatefulSet"),
        an_object("v1", "Pod"),
        an_object("example.com/v1", "ClusterQueue"),
        an_object(QUEUE, "AdmissionCheck"),
        an_object(
            "v1", "Service", spec={"externalTrafficPolicy": "Local", "ports": [{"port": 80, "targetPort": "http"}]}
        ),
    ],
)
def test_what_is_someone_elses_passes(document: dict[str, Any]) -> None:
    assert check_shape(document) is None


@pytest.mark.parametrize(
    ("quantity", "right"),
    [(16, True), ("500m", True), ("3Ti", True), ("1e3", True), (0.5, True), ("3Gx", False), ("", False), (True, False)],
)
def test_quantities(quantity: object, right: bool) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": quantity}}}
    assert (check_shape(an_object("v1", "PersistentVolumeClaim", spec=spec)) is None) is right


def test_a_kind_is_imported_when_it_is_met() -> None:
    code = "import sys, halfbyte.deploy.kinds; print([n for n in sys.modules if 'generated' in n])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
