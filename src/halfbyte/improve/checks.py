"""What has to be true before hours of rounding begin."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import hash_file
from halfbyte.errors import CheckpointError, said
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DOSSIER
from halfbyte.improve.finished import ANEW, Finished, another_source
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.journal import Journal

if TYPE_CHECKING:
    from halfbyte.quantize.rounding.experts import Task


def nothing_to_do(dossier: Dossier, task: "Task", input_scales: InputScales | None) -> bool:
    """Whether an earlier run ended with what this one would give."""
    about, scale = dossier.rounded_on_data, dossier.input_scale
    if dossier.improving is not None or dossier.rounding != "gptq" or about is None:
        return False
    same_scales = input_scales is None or (
        scale is not None and (scale.description, scale.sha256) == (input_scales.description, input_scales.sha256)
    )
    wanted = task.about_data, task.settings.as_json(), sorted(task.layers)
    return same_scales and (about.data, about.settings, about.layers) == wanted


def checked_hashes(
    finished: Finished, source: Checkpoint, journal: Journal, workers: int, progress: Progress
) -> dict[str, str]:
    """SHA-256 of every shard of the finished checkpoint, after holding it and the source against the evidence.

    Raises CheckpointError for a damaged checkpoint, OutputError for another source. Hours of rounding come after this.
    """
    allowed, recorded = finished.dossier.shard_hashes(), finished.sha256_of_source()
    ours = {name: finished.folder / name for name in allowed}
    theirs = {name: shard.path for name, shard in source.shards.items() if name not in journal.sources}
    theirs["config.json"] = source.folder / "config.json"
    sizes = {path: path.stat().st_size for path in [*ours.values(), *theirs.values()]}
    progress.start("check", sum(sizes.values()))

    def hashed(path: Path) -> str:
        try:
            digest = hash_file(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        progress.advance(sizes[path])
        return digest

    with ThreadPoolExecutor(workers) as pool:
        for name, digest in zip(theirs, pool.map(hashed, theirs.values()), strict=True):
            if digest != recorded.get(name):
                raise another_source(finished.folder, f"{name} has SHA-256 {digest}, {DOSSIER} {recorded.get(name)}")
            journal.source_done(name, digest)
        hashes = dict(zip(ours, pool.map(hashed, ours.values()), strict=True))
    for name, digest in hashes.items():
        if digest not in allowed[name]:
            raise CheckpointError(
                f"{finished.folder / name}: SHA-256 {digest}, {DOSSIER} has {' or '.join(sorted(allowed[name]))}",
                hint=said(f"the checkpoint is damaged: fetch it again, or {ANEW.template}"),
            )
    return hashes
