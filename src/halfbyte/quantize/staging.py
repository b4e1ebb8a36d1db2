"""From the staging folder into place. Renames only, in an order that never shows an unfinished checkpoint as a whole.

Every step can be repeated: a run killed in the middle publishes what is left.
"""

import os
from pathlib import Path

from halfbyte.checkpoint.source import INDEX_NAME
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.quantize.journal import STAGING


def staged_files(dst: Path, name: str) -> tuple[Path, Path]:
    """Where a finished file can be: still staged, or already published."""
    return dst / STAGING / name, dst / name


def write_staged(staging: Path, name: str, content: bytes) -> None:
    write_whole(staging / name, content)


def publish(staging: Path, dst: Path, shards: list[str], names: list[str]) -> None:
    """Move shards, then `names` in their order (config.json last), from staging to `dst`.

    A checkpoint that is being replaced stops looking like one first: its config and index go, then its shards.
    """
    try:
        for old in [dst / "config.json", dst / INDEX_NAME, *sorted(dst.glob("*.safetensors"))]:
            replaced = (staging / old.name).exists() and old.exists()
            if replaced or (old.suffix == ".safetensors" and old.name not in shards):
                old.unlink()
        for name in [*shards, *names]:
            if (staging / name).exists():
                os.replace(staging / name, dst / name)
        folder = os.open(dst, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise output_error(dst, error) from None
