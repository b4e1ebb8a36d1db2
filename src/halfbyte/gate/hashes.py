"""SHA-256 of what lies on disk, and the fingerprint of a whole checkpoint."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from halfbyte.checkpoint.writer import hash_file
from halfbyte.errors import CheckpointError
from halfbyte.evidence.improving import in_flight
from halfbyte.gate.facts import Facts
from halfbyte.gate.target import LocalFiles

FINGERPRINTED = (".json", ".jinja", ".model", ".py")
"""Endings of side files that decide what is loaded; they are part of the fingerprint, prose is not."""


def computed_sha256(facts: Facts, name: str) -> str | None:
    """SHA-256 of a file's bytes. None where it is missing, or on another machine and not read whole."""
    if name in facts.shards and facts.shards[name].sha256 is not None:
        return facts.shards[name].sha256
    if name in facts.side:
        return hashlib.sha256(facts.side[name]).hexdigest()
    if not isinstance(facts.files, LocalFiles):
        return None
    path = facts.files.path(name)
    if path is None:
        return None
    try:
        return hash_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def hash_shards(facts: Facts) -> None:
    """Fill in every shard's SHA-256, several at a time."""
    names = [name for name, shard in facts.shards.items() if shard.bytes is not None]
    facts.progress.start("hash", sum(facts.shards[name].bytes or 0 for name in names))

    def one(name: str) -> None:
        shard = facts.shards[name]
        shard.sha256 = computed_sha256(facts, name)
        facts.progress.advance(shard.bytes or 0)

    with ThreadPoolExecutor(facts.options.workers or len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, names))


def stated_files(facts: Facts) -> dict[str, tuple[Any, Any]]:
    """File -> (bytes, SHA-256) by halfbyte.json, as it says it: neither needs to be a number or a digest."""
    stated = {}
    for key in ("shards", "files"):
        rows = (facts.evidence or {}).get(key)
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and isinstance(row.get("file"), str):
                stated[row["file"]] = row.get("bytes"), row.get("sha256")
    return stated


def identity_of_shards(facts: Facts) -> str | None:
    """One hash for all shards, as `halfbyte compare` records it: SHA-256 over their own in the order of their names.

    The shards' own are computed (depth full), stated by the hub, or by halfbyte.json; None if one is not known.
    """
    stated, digests = stated_files(facts), []
    for name, shard in sorted(facts.shards.items()):
        by_evidence = None if in_flight(facts.evidence, name) else stated.get(name, (None, None))[1]
        digest = shard.sha256 or shard.stated or by_evidence
        if not isinstance(digest, str):
            return None
        digests.append(digest)
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


def checkpoint_hashes(facts: Facts) -> dict[str, Any]:
    """The `checkpoint` of a decision: what was judged, so that it can be recognised later.

    fingerprint: SHA-256 over name, size and header of every shard and the content of config, index, tokenizer and
    templates. At depth full each shard's own SHA-256 is there too; elsewhere what halfbyte.json or the hub states.
    """
    stated = stated_files(facts)
    shards = []
    for name, shard in sorted(facts.shards.items()):
        row = {"file": name, "bytes": shard.bytes, "header_sha256": shard.header_sha256, "sha256": shard.sha256}
        shards.append(row | {"stated_sha256": shard.stated or _text(stated.get(name, (None, None))[1])})
    files = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in sorted(facts.side.items())
        if name.endswith(FINGERPRINTED) and name != "halfbyte.json"
    }
    content = [[row["file"], row["bytes"], row["header_sha256"]] for row in shards], files
    return {
        "target": facts.files.where,
        "model_type": facts.arch.model_type if facts.arch is not None else None,
        "tensors": len(facts.tensors),
        "bytes": sum(tensor.bytes for tensor in facts.tensors.values()),
        "fingerprint": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "shards": shards,
        "files": files,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
