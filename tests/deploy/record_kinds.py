"""Write the models of custom resources from their published definitions (CustomResourceDefinition YAML).

    python -m venv .venv-kinds && .venv-kinds/bin/pip install "datamodel-code-generator==0.89.0" ruff pyyaml
    .venv-kinds/bin/python tests/deploy/record_kinds.py --crds DIR  # all of src/halfbyte/deploy/kinds/generated

DIR holds, at any depth, the definitions of Kueue, LeaderWorkerSet, KEDA, Gateway API, Inference Extension, KServe's
LLMInferenceService and the Prometheus operator, as their repositories publish them. What is kept of a definition:
names, types, `required`, enumerations, lengths, ranges, patterns. What is dropped: descriptions, defaults (a manifest
says what it was told, the server adds the rest), status, CEL rules (kinds/rules). A pod template is a reference to the
one of `generated/pods.py`, which LeaderWorkerSet's definition gives; equal parts of a definition become one class.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Schema = dict[str, Any]

PACKAGE = "halfbyte.deploy.kinds"
GENERATED = Path(__file__).parents[2] / "src/halfbyte/deploy/kinds/generated"
KEPT = ("type", "enum", "required", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Wanted(NamedTuple):
    group: str
    version: str
    kind: str


WANTED = (
    Wanted("kueue.x-k8s.io", "v1beta2", "ResourceFlavor"),
    Wanted("kueue.x-k8s.io", "v1beta2", "ClusterQueue"),
    Wanted("kueue.x-k8s.io", "v1beta2", "Cohort"),
    Wanted("kueue.x-k8s.io", "v1beta2", "LocalQueue"),
    Wanted("kueue.x-k8s.io", "v1beta2", "WorkloadPriorityClass"),
    Wanted("kueue.x-k8s.io", "v1beta2", "Topology"),
    Wanted("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet"),
    Wanted("keda.sh", "v1alpha1", "ScaledObject"),
    Wanted("monitoring.coreos.com", "v1", "PrometheusRule"),
    Wanted("monitoring.coreos.com", "v1", "ServiceMonitor"),
    Wanted("monitoring.coreos.com", "v1", "PodMonitor"),
    Wanted("gateway.networking.k8s.io", "v1", "HTTPRoute"),
    Wanted("inference.networking.k8s.io", "v1", "InferencePool"),
    Wanted("serving.kserve.io", "v1alpha2", "LLMInferenceService"),
)

CALLED = {"livenessProbe": "Probe", "postStart": "Handler", "env": "EnvVar"}
"""Property -> its class, where the field's own word is better than the property's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crds", type=Path, required=True, metavar="DIR", help="folder of published definitions")
    found = dict(definitions(parser.parse_args().crds))
    missing = [f"{one.kind} {one.version}" for one in WANTED if one not in found]
    if missing:
        sys.exit(f"no definition of {', '.join(missing)}")
    GENERATED.mkdir(parents=True, exist_ok=True)
    workers = found[Wanted("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet")]["properties"]["spec"]["properties"]
    template = workers["leaderWorkerTemplate"]["properties"]["workerTemplate"]
    template["properties"]["spec"].pop("required")  # KServe adds containers of its own; kinds/rules asks others for one
    write("PodTemplate", template, "pods", within_pods=True)
    for one in WANTED:
        schema = found[one]
        schema["properties"]["apiVersion"] = {"type": "string", "enum": [f"{one.group}/{one.version}"]}
        schema["properties"]["kind"] = {"type": "string", "enum": [one.kind]}
        schema["required"] = [
            "apiVersion",
            "kind",
            "metadata",
            *(k for k in schema.get("required", ()) if k != "status"),
        ]
        write(one.kind, schema, one.kind.lower())
    (GENERATED / "__init__.py").write_text(
        '"""Written by tests/deploy/record_kinds.py from published definitions; never edited."""\n', "utf-8"
    )


def definitions(folder: Path) -> Iterator[tuple[Wanted, Schema]]:
    """Every version of every definition under a folder, with its schema."""
    names = {one.kind.lower() for one in WANTED}
    for path in sorted(folder.rglob("*.yaml")):
        if not any(name in path.name for name in (*names, *(name[:-1] for name in names))):
            continue  # a definition's file is named after its plural
        document = yaml.load(path.read_text("utf-8"), LOADER)
        if document.get("kind") == "CustomResourceDefinition":
            spec = document["spec"]
            for version in spec["versions"]:
                wanted = Wanted(spec["group"], version["name"], spec["names"]["kind"])
                yield wanted, version["schema"]["openAPIV3Schema"]


def write(kind: str, schema: Schema, module: str, *, within_pods: bool = False) -> None:
    """Generate one module."""
    shared = Shared(within_pods)
    root = shared.pruned(schema, (kind,), hoist=False)
    root |= {"title": kind, "$defs": shared.classes}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"{module}.json")
        source.write_text(json.dumps(root), "utf-8")
        command = [Path(sys.executable).with_name("datamodel-codegen"), "--input", source, "--output"]
        command += [GENERATED / f"{module}.py", "--input-file-type", "jsonschema"]
        command += ["--output-model-type", "pydantic_v2.BaseModel", "--target-python-version", "3.11"]
        command += ["--base-class", f"{PACKAGE}.base.Shape", "--enum-field-as-literal", "all"]
        command += [
            "--use-one-literal-as-default",
            "--use-annotated",
            "--collapse-root-models",
            "--disable-timestamp",
            "--formatters",
        ]
        command += ["ruff-format", "--custom-file-header", HEADER, "--ignore-pyproject"]
        subprocess.run(list(map(str, command)), check=True, env={**os.environ, "PATH": path_with_ruff()})
    tidy(GENERATED / f"{module}.py")


ARBITRARY = re.compile(r"    model_config = ConfigDict\(\n        arbitrary_types_allowed=True,\n    \)\n")


def tidy(path: Path) -> None:
    """Without the settings that Shape has better, unused imports and long lines."""
    path.write_text(ARBITRARY.sub("", path.read_text("utf-8")), "utf-8")
    ruff = Path(sys.executable).with_name("ruff")
    plain = f"-q --isolated --line-length 120 {path}".split()
    subprocess.run([ruff, "check", "--fix", "--select", "F401,I", *plain], check=True)
    subprocess.run([ruff, "format", *plain], check=True)


HEADER = "# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit."


def path_with_ruff() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


class Shared:
    """Parts of one schema, equal ones once."""

    def __init__(self, within_pods: bool) -> None:
        self.classes: dict[str, Schema] = {}
        self._named: dict[str, str] = {}
        self._within_pods = within_pods

    def pruned(self, schema: Schema, path: tuple[str, ...], *, hoist: bool = True) -> Schema:
        """What is kept of a schema. path: names of the properties that lead to it."""
        known = self._known(schema, path)
        if known:
            return {"customTypePath": f"{PACKAGE}.{known}"}
        kept = {key: schema[key] for key in KEPT if key in schema}
        if "items" in schema:
            kept["items"] = self.pruned(schema["items"], (*path[:-1], singular(path[-1])))
        if isinstance(schema.get("additionalProperties"), dict):
            kept["additionalProperties"] = self.pruned(schema["additionalProperties"], path)
        properties = {} if schema.get("x-kubernetes-preserve-unknown-fields") else schema.get("properties", {})
        if not properties:
            kept.pop("required", None)
            return kept
        kept["properties"] = {key: self.pruned(value, (*path, key)) for key, value in properties.items()}
        return self._hoisted(kept, path) if hoist else kept

    def _known(self, schema: Schema, path: tuple[str, ...]) -> str | None:
        """The class of ours or of another module that stands for a schema."""
        if schema.get("x-kubernetes-int-or-string"):
            return "scalars.Quantity" if "pattern" in schema else "scalars.IntOrString"
        if path[-1] == "metadata" and schema.get("type") == "object" and "additionalProperties" not in schema:
            return "base.ObjectMeta"
        names = schema.get("properties", {}).keys()
        if {"matchLabels", "matchExpressions"} == names:
            return "base.LabelSelector"
        if path[-1] == "ephemeralContainers" or path[-1] == "status":
            return "base.Free"  # no user's to give
        if self._within_pods:
            return None
        if {"containers", "volumes", "nodeSelector"} <= names:
            return "generated.pods.PodTemplateSpec"
        if names == {"metadata", "spec"} and "containers" in schema["properties"]["spec"].get("properties", {}):
            return "generated.pods.PodTemplate"
        return (
            "generated.httproute.HTTPRouteSpec"
            if {"hostnames", "parentRefs", "rules"} <= names and len(path) > 2
            else None
        )

    def _hoisted(self, kept: Schema, path: tuple[str, ...]) -> Schema:
        """A reference to the class of a part; the same for an equal part."""
        text = json.dumps(kept, sort_keys=True)
        if text not in self._named:
            self._named[text] = self._free_name(path)
            self.classes[self._named[text]] = kept
        return {"$ref": f"#/$defs/{self._named[text]}"}

    def _free_name(self, path: tuple[str, ...]) -> str:
        words = [CALLED.get(word) or word[0].upper() + word[1:] for word in path]
        shortest = 2 if path[1:] == ("spec",) else 1  # other modules name it
        for count in range(shortest, len(words) + 1):
            name = "".join(words[-count:])
            if name not in self.classes and name != words[0]:
                return name
        return f"{''.join(words)}{len(self.classes)}"


def singular(word: str) -> str:
    """`Queries` -> `Query`, `Flavors` -> `Flavor`."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "Status")) else word


if __name__ == "__main__":
    main()
