"""SHA-256 of what lies on disk, and the fingerprint of a whole checkpoint."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

from halfbyte.checkpoint.files import LocalFiles
from halfbyte.checkpoint.writer import hash_file
from halfbyte.errors import CheckpointError
from halfbyte.evidence.decision import JudgedCheckpoint, ShardHashes
from halfbyte.evidence.dossier import File, identity
from halfbyte.evidence.names import DOSSIER
from halfbyte.gate.facts import Facts
from halfbyte.process import cores

FINGERPRINTED = (".json", ".jinja", ".model", ".py")
"""Endings of side files that decide what is loaded; they are part of the fingerprint, prose is not."""


def computed_sha256(facts: Facts, name: str) -> str | None:
    """SHA-256 of a file's bytes. None where it is missing, or on another machine and not read whole."""
    if name in facts.shards and facts.shards[name].sha256 is not None:
        return facts.shards[name].sha256
    if name in facts.digests:
        return facts.digests[name]
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
    """Fill in the SHA-256 of every shard whose header is sound, several at a time. The others are refused as it is,
    and may be of any size."""
    sound = {tensor.shard for tensor in facts.tensors.values()}
    names = [name for name, shard in facts.shards.items() if shard.bytes is not None and name in sound]
    facts.progress.start("hash", sum(facts.shards[name].bytes or 0 for name in names))

    def one(name: str) -> None:
        shard = facts.shards[name]
        shard.sha256 = computed_sha256(facts, name)
        facts.progress.advance(shard.bytes or 0)

    with ThreadPoolExecutor(facts.options.workers or cores()) as pool:
        list(pool.map(one, names))


def stated_files(facts: Facts) -> dict[str, File]:
    """Every file by halfbyte.json, as it says it: the hash needs to be no digest."""
    if facts.evidence is None:
        return {}
    return {row.file: row for row in [*facts.evidence.shards, *facts.evidence.files]}


def identity_of_shards(facts: Facts) -> str | None:
    """One hash for all shards, as `halfbyte compare` records it: SHA-256 over their own in the order of their names.

    The shards' own are computed (depth full), stated by the hub, or by halfbyte.json; None if one is not known.
    """
    stated, hashes = stated_files(facts), {}
    for name, shard in facts.shards.items():
        digest = shard.sha256 or shard.stated
        if digest is None and name in stated and facts.evidence is not None and not facts.evidence.in_flight(name):
            digest = stated[name].sha256
        if digest is None:
            return None
        hashes[name] = digest
    return identity(hashes) if hashes else None


def checkpoint_hashes(facts: Facts) -> JudgedCheckpoint:
    """The `checkpoint` of a decision: what was judged, so that it can be recognised later.

    fingerprint: SHA-256 over name, size and header of every shard and the content of config, index, tokenizer and
    templates. At depth full each shard's own SHA-256 is there too; elsewhere what halfbyte.json or the hub states.
    """
    stated = stated_files(facts)
    shards = []
    for name, shard in sorted(facts.shards.items()):
        by_evidence = stated[name].sha256 if name in stated else None
        row = ShardHashes(
            file=name,
            bytes=shard.bytes,
            header_sha256=shard.header_sha256,
            sha256=shard.sha256,
            stated_sha256=shard.stated or by_evidence,
        )
        shards.append(row)
    files = {
        name: digest
        for name, digest in sorted(facts.digests.items())
        if name.endswith(FINGERPRINTED) and name != DOSSIER
    }
    content = [[row.file, row.bytes, row.header_sha256] for row in shards], files
    return JudgedCheckpoint(
        target=facts.files.where,
        model_type=facts.arch.model_type if facts.arch is not None else None,
        tensors=len(facts.tensors),
        bytes=sum(tensor.bytes for tensor in facts.tensors.values()),
        fingerprint=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        shards=shards,
        files=files,
    )
