"""All manifests of a deployment, in memory: file -> its documents, in the order in which they are applied."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from halfbyte.deploy.autoscaling import autoscaling
from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import front_door
from halfbyte.deploy.gateway import gateway
from halfbyte.deploy.jobs import jobs
from halfbyte.deploy.kueue import kueue
from halfbyte.deploy.network import network
from halfbyte.deploy.objects import Document, metadata
from halfbyte.deploy.observability.dashboards import dashboards
from halfbyte.deploy.observability.monitors import monitors
from halfbyte.deploy.observability.rule_tests import rule_tests
from halfbyte.deploy.observability.rules import groups, rules
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.readme import readme
from halfbyte.deploy.serving import serving
from halfbyte.deploy.weights import weights

KUSTOMIZATION = "kustomization.yaml"
README = "README.md"
RULE_TESTS = "rule-tests"
HEADER = "# Written by halfbyte deploy; change the platform or the plan and write again, or edit and run --check.\n"
LINE = 120


def manifests(platform: Platform, served: Sequence[Served]) -> dict[str, list[Document]]:
    """What is applied."""
    files: dict[str, list[Document]] = {
        "namespace.yaml": [_namespace(platform)],
        "kueue.yaml": [*kueue(platform, served)],
    }
    for one in served:
        files[f"weights-{one.object}.yaml"] = list(weights(platform, one))
        files[f"serving-{one.object}.yaml"] = list(serving(platform, one))
    files |= {
        "door.yaml": list(front_door(platform, served)),
        "gateway.yaml": list(gateway(platform, served)),
        "network.yaml": list(network(platform, served)),
        "autoscaling.yaml": list(autoscaling(platform, served)),
        "jobs.yaml": list(jobs(platform, served)),
        "monitors.yaml": list(monitors(platform, served)),
        "rules.yaml": list(rules(platform, served)),
        "dashboards.yaml": list(dashboards(platform, served)),
    }
    return {name: documents for name, documents in files.items() if documents}


def contents(platform: Platform, served: Sequence[Served]) -> dict[str, str]:
    """File -> text of all that is written: the manifests, how to apply them, and tests of the rules."""
    files = manifests(platform, served)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    recorded = groups(platform, served)
    return {
        **{name: HEADER + dumped(documents) for name, documents in files.items()},
        KUSTOMIZATION: HEADER + dumped([kustomization]),
        README: readme(platform, served, list(files)),
        f"{RULE_TESTS}/rules.yaml": HEADER + dumped([{"groups": recorded}]),
        f"{RULE_TESTS}/tests.yaml": HEADER + dumped([rule_tests(platform, served)]),
    }


class _Dumper(yaml.SafeDumper):
    """No anchors, lists indented, texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dumped(documents: Sequence[Mapping[str, Any]]) -> str:
    """YAML of one or several documents, keys in the order given; the same for the same input."""
    parts = (yaml.dump(json.loads(json.dumps(one)), Dumper=_Dumper, sort_keys=False, width=LINE) for one in documents)
    return "---\n".join(parts)


def _namespace(platform: Platform) -> Document:
    meta = metadata(platform.namespace, None, {"app.kubernetes.io/part-of": "halfbyte"})
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
