"""The files that transformers is about to load, opened by Halfbyte's own reader: headers parsed as hostile input."""

from collections.abc import Sequence
from pathlib import Path

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UnsupportedError


def open_files(checkpoint_files: Sequence[str] | None) -> Checkpoint:
    """The checkpoint folder of these files; an empty one if transformers loads none (a model from its config alone).

    Raises CheckpointError for truncated or contradictory shards, which would otherwise be met in mid-load.
    """
    if not checkpoint_files:
        return Checkpoint(Path(), {}, {}, {})
    folders = {Path(file).parent for file in checkpoint_files}
    if len(folders) != 1:
        raise UnsupportedError(f"shards lie in {len(folders)} folders", hint="download the checkpoint into one folder")
    return Checkpoint.open(folders.pop())
