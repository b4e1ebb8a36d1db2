"""The folder that a run writes to: whether it may, and that an error leaves it as it was, or worth going on from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from halfbyte.checkpoint.writer import output_error
from halfbyte.disk import check_apart
from halfbyte.errors import HalfbyteError, NonFiniteError, OutputError, said
from halfbyte.quantize.calibrated import ACTIVATIONS
from halfbyte.quantize.journal import STAGING, Journal, has_journal
from halfbyte.quantize.rounding.store import FOLDER
from halfbyte.stream.snapshot import STATE


def check_destination(src: Path, dst: Path, overwrite: bool) -> None:
    """Raises OutputError for a folder that cannot take the output, or holds something else."""
    check_apart(src, dst)
    if dst.is_symlink() and not dst.exists():
        raise OutputError(f"{dst}: is a link to {os.readlink(dst)}, which is not there", hint="remove the link")
    if dst.exists() and not dst.is_dir():
        raise OutputError(f"{dst}: is not a folder", hint="choose a folder")
    if (dst / "config.json").exists():
        with suppress(OSError):  # a run killed at its very last step leaves this empty, beside a whole checkpoint
            (dst / STAGING).rmdir()
    if dst.is_dir() and any(dst.iterdir()) and not _holds_unfinished(dst) and not overwrite:
        raise OutputError(
            f"{dst}: is not empty", hint=said("choose another folder, or replace the checkpoint with {overwrite}")
        )


def _holds_unfinished(dst: Path) -> bool:
    """Whether all that `dst` holds is an unfinished run, or its journal says whose it is."""
    return has_journal(dst) or ((dst / STAGING).is_dir() and not (dst / "config.json").exists())


@contextmanager
def new_folder(dst: Path) -> Iterator[None]:
    """`dst` exists; after an error it does not, if it was made here and is empty."""
    try:
        created = not dst.exists()
        dst.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(dst, error) from None
    try:
        yield
    except BaseException:
        if created and dst.is_dir() and not any(dst.iterdir()):
            dst.rmdir()
        raise


@contextmanager
def resumable(journal: Journal) -> Iterator[None]:
    """After an error the journal is kept, if the same command can go on from it, and else dropped.

    A full disk or Ctrl-C leaves the finished shards. Bad input would fail again, and mending it makes another job;
    but hours of rounding on data end with nothing but NaN, which is in the model or the data.
    """
    try:
        yield
    except BaseException as error:
        worth = (f"{FOLDER}/*.json", f"{ACTIVATIONS}/**/{STATE}", f"{ACTIVATIONS}/openness-*")
        if any(path for pattern in worth for path in journal.folder.glob(pattern)):
            keep = not isinstance(error, NonFiniteError)
        else:
            keep = bool(journal.shards) and (isinstance(error, OutputError) or not isinstance(error, HalfbyteError))
        if keep:
            journal.close()
        else:
            journal.drop()
        raise
