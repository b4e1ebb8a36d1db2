"""`quantize`: a checkpoint in, its NVFP4 checkpoint out, streaming.

Worker threads take units in source order, read, encode and write each tensor straight to its final offset in a staged
shard; a finisher syncs, hashes and names completed shards; hashers read the source shards alongside, while their bytes
are in the page cache. All of it releases the GIL. Memory is a few megabytes per worker, whatever the checkpoint's size;
of a source that is not here, `checkpoint.blocks` holds as much as it says.

Everything is staged in `DST/.halfbyte` and moved into place at the end, config.json last, so no half-written output
looks finished. A run that was killed goes on where its journal ends and gives the same bytes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halfbyte import __version__
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import OutputError, said
from halfbyte.formats.nvfp4.codec import Rounding as EncoderRounding
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.calibrated import ACTIVATIONS, calibrated_scales, measured_scales
from halfbyte.quantize.destination import check_destination, new_folder, resumable
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import check_covered
from halfbyte.quantize.journal import STAGING, Journal
from halfbyte.quantize.metadata import write_metadata
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.prepare import Prepared, prepare
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.room import check_room
from halfbyte.quantize.rounding.stage import FALLBACK, DataRounding, round_on_data
from halfbyte.quantize.shared_job import JOB
from halfbyte.quantize.staging import publish, stage_side_files
from halfbyte.quantize.threads import Run


def quantize(
    src: str | Path,
    dst: str | Path,
    options: QuantizeOptions | None = None,
    *,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
    **given: Any,
) -> QuantizeResult:
    """Quantize the checkpoint in folder `src` into folder `dst`.

    given: fields of QuantizeOptions by name, instead of `options`. on_done is told the result while the run can still
    be resumed: a run is finished once its result was shown.

    Raises HalfbyteError; then `dst` is as it was, but for a `.halfbyte` folder from which the next run resumes.
    """
    options = options or QuantizeOptions(**given)
    began, progress, dst = time.monotonic(), progress or Silent(), Path(dst)
    with Checkpoint.open(src, options.follow_links) as source:
        check_destination(source.folder, dst, options.overwrite)
        prepared = prepare(source, dst, options, began)
        if options.dry_run:
            return prepared.result(prepared.known_scales)
        with new_folder(dst):
            check_room(dst, prepared.job, prepared.room, prepared.task is not None)
            scales = _measured_first(prepared, progress)
            if (dst / STAGING / JOB).exists() and not options.overwrite:
                raise OutputError(
                    f"{dst}: holds parts of a run",
                    hint=said("join them with {finish}, or throw them away with {overwrite}"),
                )
            journal = Journal.open(dst, fingerprint(prepared, scales), discard=options.overwrite, note=progress.note)
            with resumable(journal):
                on_data, scales = _rounded_on_data(prepared, scales, progress)
                done = _write(prepared, journal, scales, on_data, progress)
                if on_done is not None:
                    on_done(done)
                journal.drop()
    return done


def _measured_first(prepared: Prepared, progress: Progress) -> InputScales | None:
    """Input scales as they are known before any weight is rounded; a rounding pass measures them as it goes."""
    if prepared.documents is None or prepared.task is not None:
        return prepared.known_scales
    calibrate = prepared.options.calibrate
    scales = calibrated_scales(prepared.source, prepared.dst, calibrate, prepared.bounds, progress)
    check_covered(prepared.job, scales)
    return scales


def _rounded_on_data(
    prepared: Prepared, scales: InputScales | None, progress: Progress
) -> tuple[DataRounding | None, InputScales | None]:
    """What is rounded on data, and the input scales as they are known after it."""
    if prepared.task is None:
        return None, scales
    on_data = round_on_data(prepared.task, prepared.dst, prepared.job, progress)
    if prepared.rule:
        scales = measured_scales(prepared.dst / STAGING / ACTIVATIONS)
        check_covered(prepared.job, scales)
    return on_data, scales


def _write(
    prepared: Prepared, journal: Journal, scales: InputScales | None, on_data: DataRounding | None, progress: Progress
) -> QuantizeResult:
    """The shards, all that goes with them, and everything into its place."""
    job, dst, rounding = prepared.job, prepared.dst, prepared.options.rounding
    rest: EncoderRounding = rounding if rounding == "max" or rounding == "sweep" else FALLBACK
    experts = None if on_data is None else on_data.experts
    copied = stage_side_files(journal.folder, prepared.side.files)
    run = Run(prepared.source, job, journal, dst, rest, scales, prepared.options.threads, progress, experts)
    results = run.execute()
    about = None if on_data is None else on_data.record(job)
    names = write_metadata(prepared, journal, copied, run.output_files(), scales, results, about)
    publish(journal.folder, dst, [shard.file for shard in job.shards], copied, names)
    return prepared.result(scales, results, run.resumed_shards)


def fingerprint(prepared: Prepared, scales: InputScales | None) -> str:
    """Identifies the job: equal fingerprints give equal bytes, shard by shard. From the key of what is rounded on data
    follow the scales that are measured in the same pass."""
    source, job, rounding = prepared.source, prepared.job, prepared.options.rounding
    return fingerprint_of(
        {
            "halfbyte": __version__,
            "source": source_identity(source.shards.values()),
            "config": source.config,
            "recipe": job.recipe.model_dump(mode="json"),
            "rounding": rounding if prepared.task is None else [rounding, prepared.task.key],
            "input_scale": None if scales is None else [scales.description, scales.sha256],
            "shards": [[shard.file, shard.bytes, len(shard.units)] for shard in job.shards],
        }
    )
