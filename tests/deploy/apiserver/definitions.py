"""The definitions of the custom resources that Halfbyte writes, as one JSON file: YAML takes long to read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from deploy.apiserver.found import cache
from halfbyte.deploy.kinds import KINDS

Definition = dict[str, Any]

CUSTOM = {(version.partition("/")[0], kind) for version, kind in KINDS if ".generated." in KINDS[version, kind]}
STEMS = tuple(kind.lower()[:-1] for _, kind in CUSTOM)  # a file is named after the plural: cohorts, topologies


def definitions(folder: Path) -> tuple[str, list[Definition]]:
    """A name for their content, and the definitions, without the webhooks that would convert between versions."""
    files = sorted(path for path in folder.rglob("*.yaml") if path.stem.partition("_")[2].startswith(STEMS))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    kept = cache() / f"definitions-{digest}.json"
    if not kept.exists():
        half = kept.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(_read(files)), "utf-8")
        half.rename(kept)
    found: list[Definition] = json.loads(kept.read_text("utf-8"))
    return digest, found


def _read(files: list[Path]) -> list[Definition]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for path in files:
        document = yaml.load(path.read_text("utf-8"), loader)
        if (document["spec"]["group"], document["spec"]["names"]["kind"]) in CUSTOM:
            document["spec"].pop("conversion", None)
            document.pop("status", None)
            found.append(document)
    return found
