"""A comparison written into the candidate's `halfbyte.json`, so that the gate can ask for it.

An entry is known by the shards of both checkpoints and the data; the same comparison run again takes its place.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.source import Checkpoint, read_json
from halfbyte.checkpoint.writer import hash_file, write_whole
from halfbyte.errors import CheckpointError
from halfbyte.evidence.improving import improving
from halfbyte.quantize.side_files import EVIDENCE, json_bytes

KEY = ("base", "candidate", "data_sha256", "recall_sha256")
SECTION = "compare"


def shard_hashes(checkpoint: Checkpoint, advance: Callable[[int], None]) -> dict[str, str]:
    """SHA-256 of every shard as it lies on disk. advance: told the bytes of each. Raises CheckpointError."""
    hashes = {}
    for name, shard in sorted(checkpoint.shards.items()):
        try:
            hashes[name] = hash_file(shard.path)
        except OSError as error:
            raise CheckpointError(f"{shard.path}: cannot be read: {error.strerror}") from None
        advance(shard.bytes)
    return hashes


def identity(hashes: dict[str, str]) -> str:
    """One hash for all shards: SHA-256 over their own, in the order of the file names, names left out."""
    return hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()


def describes(folder: Path, hashes: dict[str, str]) -> bool:
    """Whether the evidence in `folder` is about shards with these hashes, and they are there to stay."""
    document = read_json(folder / EVIDENCE)
    listed = document.get("shards")
    if not isinstance(listed, list) or improving(document) is not None:
        return False
    return {row.get("file"): row.get("sha256") for row in listed if isinstance(row, dict)} == hashes


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Put `entry` into the evidence of `folder`, in one piece. Raises CheckpointError, OutputError."""
    path = folder / EVIDENCE
    document = read_json(path)
    earlier = document.get(SECTION, [])
    if not isinstance(earlier, list):
        raise CheckpointError(f"{path}: {SECTION} is no list", hint="the evidence was edited; quantize again")
    kept = [row for row in earlier if not _same(row, entry)]
    document[SECTION] = [*kept, entry]
    write_whole(path, json_bytes(document))


def _same(row: Any, entry: dict[str, Any]) -> bool:
    return isinstance(row, dict) and all(row.get(key) == entry[key] for key in KEY)
