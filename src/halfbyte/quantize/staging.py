"""From the staging folder into place. Renames only, in an order that never shows an unfinished checkpoint as a whole.

Every step can be repeated: a run killed in the middle publishes what is left.
"""

import os
import shutil
from pathlib import Path

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.errors import OutputError
from halfbyte.quantize.journal import STAGING

SPARE_BYTES = 64 << 20
"""Room beyond the output's own bytes: metadata, evidence, journal."""


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
        _sync(dst)
    except OSError as error:
        raise output_error(dst, error) from None


def put_in_place(dst: Path, name: str) -> None:
    """Move one staged file over the published one, after all that was written to `dst` before. Raises OutputError."""
    try:
        _sync(dst)
        os.replace(dst / STAGING / name, dst / name)
        _sync(dst)
    except OSError as error:
        raise output_error(dst / name, error) from None


def check_apart(src: Path, dst: Path) -> None:
    """Raises OutputError if writing to `dst` could touch the source, or no folder can have that name."""
    try:
        real_src, real_dst = src.resolve(), dst.resolve()
        dst.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise OutputError(f"{str(dst)[:200]}: {getattr(error, 'strerror', None) or error}") from None
    if real_dst == real_src or real_src in real_dst.parents or real_dst in real_src.parents:
        raise OutputError(f"{dst}: lies in, around or on the source {src}", hint="choose a folder of its own")


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
