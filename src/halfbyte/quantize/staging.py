"""From the staging folder into place. Renames only, in an order that never shows an unfinished checkpoint as a whole.

Every step can be repeated: a run killed in the middle publishes what is left.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.writer import copy_file, output_error, write_whole
from halfbyte.errors import CheckpointError, OutputError
from halfbyte.evidence.dossier import File
from halfbyte.quantize.journal import STAGING

SPARE_BYTES = 64 << 20
"""Room beyond the output's own bytes: metadata, evidence, journal."""


BESIDE = "beside"
"""Where side files wait, in folders as in the source."""


def staged_files(dst: Path, name: str) -> tuple[Path, Path]:
    """Where a finished file can be: still staged, or already published."""
    return dst / STAGING / name, dst / name


def write_staged(staging: Path, name: str, content: bytes) -> None:
    write_whole(staging / name, content)


def stage_side_files(staging: Path, files: Mapping[str, Path]) -> dict[str, File]:
    """Copy what comes along to where a source that changes or goes away does not touch it. Output name -> as copied.

    Raises CheckpointError for a file that cannot be read, OutputError.
    """
    shutil.rmtree(staging / BESIDE, ignore_errors=True)
    copied = {}
    for name, path in files.items():
        size, digest = copy_file(path, staging / BESIDE / name, CheckpointError)
        copied[name] = File(file=name, bytes=size, sha256=digest)
    return copied


def publish(staging: Path, dst: Path, shards: list[str], side: Iterable[str], names: list[str]) -> None:
    """Move shards, side files, then `names` in their order (config.json last), from staging to `dst`.

    A checkpoint that is being replaced stops looking like one first: its config and index go, then its shards.
    """
    try:
        for old in [dst / "config.json", dst / INDEX_NAME, *sorted(dst.glob("*.safetensors"))]:
            replaced = (staging / old.name).exists() and old.exists()
            if replaced or (old.suffix == ".safetensors" and old.name not in shards):
                old.unlink()
        for name in shards:
            _move(staging / name, dst / name)
        for name in side:
            (dst / name).parent.mkdir(parents=True, exist_ok=True)
            _move(staging / BESIDE / name, dst / name)
        for name in names:
            _move(staging / name, dst / name)
        _sync(dst)
    except OSError as error:
        raise output_error(dst, error) from None


def _move(staged: Path, place: Path) -> None:
    if staged.exists():
        os.replace(staged, place)


def put_in_place(dst: Path, name: str) -> None:
    """Move one staged file over the published one, after all that was written to `dst` before. Raises OutputError."""
    try:
        _sync(dst)
        os.replace(dst / STAGING / name, dst / name)
        _sync(dst)
    except OSError as error:
        raise output_error(dst / name, error) from None


def check_free(dst: Path, needed_bytes: int) -> None:
    """Raises OutputError if the disk has no room for so many bytes more, and some for metadata and journal."""
    needed, free = needed_bytes + SPARE_BYTES, shutil.disk_usage(dst).free
    if needed > free:
        raise OutputError(
            f"{dst}: the output needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free",
            hint="free some space, or choose another disk",
        )


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
