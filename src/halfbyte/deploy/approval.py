"""Whether the gate let this very checkpoint pass: its decision, held against the files that are there now."""

import hashlib
import json
import os
from contextlib import closing
from pathlib import Path

from halfbyte.checkpoint.index import SHARD_SUFFIX
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.writer import hash_file
from halfbyte.deploy.errors import DeployError
from halfbyte.errors import CheckpointError, said
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DECISION, DOSSIER

ENOUGH = said("judge it: halfbyte gate TARGET -o TARGET/gate.json, or deploy it unjudged with {no_gate}")


def approved(target: Path) -> DecisionDocument:
    """The decision beside the checkpoint. Raises DeployError unless it is a pass, for these very files.

    Headers, sizes and side files are read and compared; weights by the hash that halfbyte.json states for them.
    """
    file = target / DECISION
    if not file.is_file():
        raise DeployError(f"{file}: there is no gate decision", hint=ENOUGH)
    decision = DecisionDocument.read(file)
    if decision.decision != "pass":
        why = next((found.message for found in decision.findings if found.severity == "deny"), "see its findings")
        raise DeployError(f"{file}: the gate's decision is {decision.decision}: {why}", hint=ENOUGH)
    other = _difference(target, decision)
    if other is not None:
        raise DeployError(f"{file}: the decision is about another checkpoint: {other}", hint=ENOUGH)
    return decision


def _difference(target: Path, decision: DecisionDocument) -> str | None:
    judged = decision.checkpoint
    there = {path.name for path in target.glob(f"*{SHARD_SUFFIX}")}
    known = {row.file for row in judged.shards}
    if there != known:
        return f"shards {', '.join(sorted(there ^ known))[:200]}"
    dossier = target / DOSSIER
    written = Dossier.read(dossier) if dossier.is_file() else None
    for row in judged.shards:
        if row.bytes != os.stat(target / row.file).st_size:
            return f"{row.file} had {row.bytes} bytes"
        with closing(Shard(target / row.file)) as shard:
            if shard.header_sha256 != row.header_sha256:
                return f"{row.file} has another header"
        for stated in (row.sha256, row.stated_sha256):
            if stated is not None and written is not None and not written.allows(row.file, stated):
                return f"{row.file} had SHA-256 {stated[:12]}"
    for name, digest in judged.files.items():
        path = target / name
        if not path.is_file() or os.stat(path).st_size > JSON_LIMIT_BYTES or hash_file(path) != digest:
            return f"{name} is not as it was"
    content = [[row.file, row.bytes, row.header_sha256] for row in judged.shards], judged.files
    if hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() != judged.fingerprint:
        return f"its fingerprint {judged.fingerprint[:12]} is not that of its own shards and files"
    return None


def weights_hashes(target: Path, decision: DecisionDocument | None) -> dict[str, str]:
    """File -> SHA-256 of all that a replica loads: by the dossier, or the decision. Side files are hashed here.

    Raises CheckpointError where nobody has hashed the weights.
    """
    dossier = target / DOSSIER
    hashes: dict[str, str] = {}
    if decision is not None:
        hashes |= {row.file: row.sha256 or row.stated_sha256 or "" for row in decision.checkpoint.shards}
    if dossier.is_file():
        hashes |= {row.file: row.sha256 for row in Dossier.read(dossier).shards}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(target).parts)
        if path.is_file() and not hidden and not name.endswith(SHARD_SUFFIX) and name != DECISION:
            hashes[name] = hash_file(path)
    unknown = [path.name for path in target.glob(f"*{SHARD_SUFFIX}") if not hashes.get(path.name)]
    if unknown:
        raise CheckpointError(
            f"{target}: no SHA-256 is known of {len(unknown)} shards, first {sorted(unknown)[0]}: {DOSSIER} is missing",
            hint=said("halfbyte gate TARGET {depth} full hashes them"),
        )
    return dict(sorted(hashes.items()))
