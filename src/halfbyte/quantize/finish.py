"""`quantize --finish`: what the parts wrote, checked and joined into one checkpoint."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import OutputError, said
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.leases import Leases
from halfbyte.quantize.metadata import write_metadata
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.parts import PartJournal, check_options, encoder_rounding, source_piece
from halfbyte.quantize.pipeline import fingerprint
from halfbyte.quantize.place import Place, place_of
from halfbyte.quantize.prepare import Prepared, prepare
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.shared_job import read_job, shared_job, with_stored
from halfbyte.quantize.staging import stage_side_files
from halfbyte.quantize.threads import Run, results_of

LEASE_SECONDS = 60


def finish_parts(
    src: str | Path,
    dst: str | Path,
    options: QuantizeOptions,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
) -> QuantizeResult:
    """Check what the parts left and join it. Options that are left at their defaults are those of the parts.

    Raises OutputError, and changes nothing, where a shard is missing or not what its part wrote.
    """
    began, progress = time.monotonic(), progress or Silent()
    place = place_of(dst)
    stored = read_job(place)
    if stored is None:
        raise OutputError(f"{place.where}: holds no parts of a run", hint=said("begin with {part} 0/2 and {part} 1/2"))
    options = with_stored(options, stored)
    check_options(options)
    with Checkpoint.open(src, options.follow_links) as source:
        place.check(source, options.overwrite)
        prepared = prepare(source, Path(place.where), options, began)
        shared_job(place, fingerprint(prepared, prepared.known_scales), options)
        with Leases(place, f"finish-{os.getpid()}{place.worker}", LEASE_SECONDS) as leases:
            result = joined(prepared, place, leases, progress)
        if on_done is not None:
            on_done(result)
        place.clear()
    return result


def joined(
    prepared: Prepared, place: Place, leases: Leases, progress: Progress, resumed_shards: int = 0
) -> QuantizeResult:
    """All that is there, checked and published; what the parts agreed by is left. See `finish_parts`."""
    source, options, scales = prepared.source, prepared.options, prepared.known_scales
    shards = [shard.file for shard in prepared.job.shards]
    journal = _records(prepared, place, leases, progress)
    rounding = encoder_rounding(options)
    files = Run(source, prepared.job, journal, place.work, rounding, scales, 1, progress).output_files()
    results = results_of(journal, shards)
    copied = stage_side_files(place.work, prepared.side.files)
    names = write_metadata(prepared, journal, copied, files, scales, results, None)
    source.check_unchanged()
    place.publish(shards, list(copied), names)
    return replace(prepared.result(scales, results, resumed_shards), output=place.where)


def _records(prepared: Prepared, place: Place, leases: Leases, progress: Progress) -> Journal:
    """All records as one journal, their files checked again. Raises OutputError naming what is missing."""
    journal, done = PartJournal(leases, place, place.work, {}), leases.all_done()
    wanted = [shard.file for shard in prepared.job.shards]
    missing = [piece for piece in wanted if piece not in done]
    unread = [name for name in prepared.source.shards if source_piece(name) not in done]
    if missing or unread:
        what = f"{len(missing)} of {len(wanted)} shard(s) are missing: {_some(missing)}" if missing else ""
        hashes = f"source shard(s) not hashed: {_some(unread)}" if unread else ""
        at_work = [name.partition(".")[0] for name in leases.workers() if "-of-" in name and leases.alive(name)]
        raise OutputError(
            f"{place.where}: {'; '.join(filter(None, (what, hashes)))}",
            hint=f"part(s) {', '.join(at_work)} are at work: wait for them"
            if at_work
            else said("run the parts that are missing with {part}, then {finish} again"),
        )
    progress.start("check", prepared.job.output_bytes)
    for shard in prepared.job.shards:
        record = leases.record(shard.file)
        if record is None or not place.check_shard(shard.file, shard.bytes, record):
            leases.undone(shard.file)
            raise OutputError(
                f"{place.where}/.halfbyte/{shard.file}: is not what its part wrote",
                hint=said("run any part again: it writes this shard anew; then {finish} again"),
            )
        journal.shards[shard.file] = record
        progress.advance(shard.bytes)
    for name in prepared.source.shards:
        journal.sources[name] = str((leases.record(source_piece(name)) or {}).get("sha256"))
    return journal


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
