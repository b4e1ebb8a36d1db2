"""A comparison written into the candidate's `halfbyte.json`, so that the gate can ask for it.

An entry is known by the shards of both checkpoints and the data; the same comparison run again takes its place.
"""

from collections.abc import Callable
from pathlib import Path

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.evidence.comparison import Compared
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DOSSIER


def shard_hashes(checkpoint: Checkpoint, advance: Callable[[int], None]) -> dict[str, str]:
    """SHA-256 of every shard as it lies on disk. advance: told the bytes of each. Raises CheckpointError."""
    hashes = {}
    for name, shard in sorted(checkpoint.shards.items()):
        hashes[name] = shard.sha256()
        advance(shard.bytes)
    return hashes


def describes(folder: Path, hashes: dict[str, str]) -> bool:
    """Whether the evidence in `folder` is about shards with these hashes, and they are there to stay."""
    dossier = Dossier.read(folder / DOSSIER)
    return dossier.improving is None and {row.file: row.sha256 for row in dossier.shards} == hashes


def append(folder: Path, entry: Compared) -> None:
    """Put `entry` into the evidence of `folder`, in one piece. Raises CheckpointError, OutputError."""
    path = folder / DOSSIER
    dossier = Dossier.read(path)
    kept = [row for row in dossier.compare if not row.repeats(entry)]
    dossier.model_copy(update={"compare": [*kept, entry]}).write(path)
