"""A CycloneDX 1.6 ML-BOM of a checkpoint: the model as a component with its card, its files, hashes and origin."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from halfbyte import __version__
from halfbyte.checkpoint.writer import write_whole
from halfbyte.evidence.decision import JudgedCheckpoint
from halfbyte.gate.card import front_matter, licence_of
from halfbyte.gate.facts import Facts
from halfbyte.gate.hashes import checkpoint_hashes
from halfbyte.text import json_text


def bill_of_materials(facts: Facts) -> dict[str, Any]:
    """The document. Its serial number follows from the checkpoint, so equal checkpoints have equal numbers."""
    judged = checkpoint_hashes(facts)
    front = front_matter(facts.side.get("README.md", b"")) or {}
    name = facts.files.where.rstrip("/").rpartition("/")[2] or "checkpoint"
    reference = f"model:{judged.fingerprint}"
    licence = licence_of(front) or licence_of(front_matter(facts.side.get("README.source.md", b"")))
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": name,
        "version": judged.fingerprint[:16],
        "hashes": [{"alg": "SHA-256", "content": judged.fingerprint}],
        "modelCard": {"modelParameters": _parameters(facts, judged)},
        "properties": _properties(facts),
    }
    if licence is not None:
        component["licenses"] = [{"license": {"name": licence}}]
    dependencies = []
    base = front.get("base_model")
    bases = [item for item in (base if isinstance(base, list) else [base]) if isinstance(item, str)]
    if bases:
        component["pedigree"] = {
            "ancestors": [{"type": "machine-learning-model", "name": item, "bom-ref": f"base:{item}"} for item in bases]
        }
        dependencies.append({"ref": reference})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(judged.fingerprint[:32])}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "tools": {"components": [{"type": "application", "name": "halfbyte", "version": __version__}]},
            "component": component,
        },
        "components": _files(facts, judged),
        "dependencies": dependencies,
    }


def _parameters(facts: Facts, judged: JudgedCheckpoint) -> dict[str, Any]:
    architectures = facts.config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    found: dict[str, Any] = {"task": "text-generation", "approach": {"type": "self-supervised"}}
    if judged.model_type:
        found["architectureFamily"] = judged.model_type
    if isinstance(named, str):
        found["modelArchitecture"] = named
    return found


def _properties(facts: Facts) -> list[dict[str, str]]:
    rows = [{"name": "halfbyte:algorithm", "value": str(facts.algorithm)}]
    for (role, mtp, form), count in facts.formats.items():
        rows.append({"name": f"halfbyte:format:{role}{':mtp' if mtp else ''}", "value": f"{form} ({count} tensors)"})
    return rows


def _files(facts: Facts, judged: JudgedCheckpoint) -> list[dict[str, Any]]:
    rows = [(row.file, row.sha256 or row.stated_sha256) for row in judged.shards]
    rows += sorted(facts.digests.items())
    found = []
    for name, digest in rows:
        component: dict[str, Any] = {"type": "file", "bom-ref": f"file:{name}", "name": name}
        if digest is not None:
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        found.append(component)
    return found


def write_bom(facts: Facts, path: Path) -> None:
    """Raises OutputError."""
    write_whole(path, (json_text(bill_of_materials(facts), indent=1) + "\n").encode())
