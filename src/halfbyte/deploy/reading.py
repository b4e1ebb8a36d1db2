"""Manifests of a folder, as they are there: judged without what they were made from."""

from pathlib import Path
from typing import Any

import yaml

from halfbyte.deploy.checks import faults
from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.kinds import check_shape
from halfbyte.deploy.kinds.rules import object_faults
from halfbyte.deploy.manifests import KUSTOMIZATION
from halfbyte.deploy.objects import Document
from halfbyte.disk import read_text

FILE_LIMIT_BYTES = 20_000_000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestError(DeployError):
    """Manifests that a cluster would refuse, or that do not agree with each other."""


def check(folder: Path) -> int:
    """Number of objects. Raises ManifestError for the first fault, saying how many more there are."""
    documents = read_manifests(folder)
    found = [line for one in documents for line in object_lines(one)] or faults(documents)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ManifestError(f"{folder}: {found[0]}{more}", hint="; ".join(found[1:4]) or None)
    return len(documents)


def object_lines(document: Document) -> list[str]:
    """What is wrong with one object by itself."""
    shape = check_shape(document)
    return [shape] if shape is not None else list(object_faults(document))


def read_manifests(folder: Path) -> list[Document]:
    """Of the files that the kustomization lists. Raises ManifestError for one that is missing, or not listed."""
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder", hint="give the folder that halfbyte deploy wrote")
    listed = _listed(folder)
    there = {path.name for path in folder.glob("*.y*ml")} - {KUSTOMIZATION}
    missing, extra = sorted(set(listed) - there), sorted(there - set(listed))
    if missing:
        raise ManifestError(f"{folder / KUSTOMIZATION}: lists {missing[0]}, which is not there")
    if extra:
        raise ManifestError(f"{folder / KUSTOMIZATION}: does not list {extra[0]}, so it would not be applied")
    return [one for name in listed for one in documents_of(folder / name)]


def _listed(folder: Path) -> list[str]:
    file = folder / KUSTOMIZATION
    if not file.is_file():
        raise ManifestError(f"{file}: missing", hint="halfbyte deploy writes it")
    documents = documents_of(file)
    resources = documents[0].get("resources") if len(documents) == 1 else None
    if not isinstance(resources, list) or not all(isinstance(name, str) for name in resources):
        raise ManifestError(f"{file}: wanted one Kustomization with resources, a list of files")
    if documents[0].get("kind") != "Kustomization":
        raise ManifestError(f"{file}: kind {documents[0].get('kind')}, wanted Kustomization")
    return [name.removeprefix("./") for name in resources]


def documents_of(file: Path) -> list[Document]:
    """Objects of a YAML file. Raises ManifestError."""
    text = read_text(file, FILE_LIMIT_BYTES, ManifestError)
    try:
        found: list[Any] = [one for one in yaml.load_all(text, Loader=LOADER) if one is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestError(f"{file}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
            raise ManifestError(f"{file}: holds something that is no Kubernetes object: {str(one)[:60]}")
        if not isinstance(one.get("metadata", {}), dict):
            raise ManifestError(f"{file}: {one['kind']}: metadata is no mapping")
    return found
