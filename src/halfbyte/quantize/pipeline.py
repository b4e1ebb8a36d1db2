"""`quantize`: a checkpoint in, its NVFP4 checkpoint out, streaming.

Worker threads take units in source order, read, encode and write each tensor straight to its final offset in a staged
shard; a finisher syncs, hashes and names completed shards; hashers read the source shards alongside, while their bytes
are in the page cache. All of it releases the GIL. Memory is a few megabytes per worker, whatever the checkpoint's size.

Everything is staged in `DST/.halfbyte` and moved into place at the end, config.json last, so no half-written output
looks finished. A run that was killed goes on where its journal ends and gives the same bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from halfbyte import __version__
from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error
from halfbyte.errors import HalfbyteError, NonFiniteError, OutputError, UsageError
from halfbyte.evidence.dossier import File
from halfbyte.evidence.names import DOSSIER
from halfbyte.formats.nvfp4.codec import Measure
from halfbyte.formats.nvfp4.codec import Rounding as EncoderRounding
from halfbyte.improve.shard_by_shard import improve as improve_checkpoint
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.calibrated import (
    ACTIVATIONS,
    Bounds,
    calibrated_scales,
    calibration_documents,
    known_scales,
    measured_by,
    measured_scales,
)
from halfbyte.quantize.card import model_card
from halfbyte.quantize.dossier import dossier, role_table
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job, check_covered, plan_job
from halfbyte.quantize.journal import STAGING, Journal, has_journal
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.room import check_room, room_for
from halfbyte.quantize.rounding.settings import OnData
from halfbyte.quantize.rounding.stage import FALLBACK, DataRounding, round_on_data, rounded_layers, task_on_data
from halfbyte.quantize.rounding.store import FOLDER
from halfbyte.quantize.side_files import CARD, SOURCE_CARD, carried, metadata_files
from halfbyte.quantize.staging import check_apart, publish, write_staged
from halfbyte.quantize.threads import Results, Run
from halfbyte.recipes.recipe import DEFAULT_RECIPE, Recipe
from halfbyte.stream.snapshot import STATE

Rounding = Literal["max", "sweep", "weighted-sweep", "gptq"]

DEFAULT_CALIBRATION_LENGTH = 2048
DEFAULT_MAX_SHARD_BYTES = 5_000_000_000


def quantize(
    src: str | Path,
    dst: str | Path,
    *,
    recipe: str | Path | Recipe = DEFAULT_RECIPE,
    rounding: Rounding = "max",
    input_scale: str | float | Path | None = None,
    calibrate: Sequence[str] = (),
    calibration_tokens: int | None = None,
    calibration_length: int = DEFAULT_CALIBRATION_LENGTH,
    memory_budget: int | None = None,
    device: str = "cpu",
    workers: int | None = None,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    improve: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
) -> QuantizeResult:
    """Quantize the checkpoint in folder `src` into folder `dst`.

    recipe: shipped name, file, or Recipe. rounding: `max` is ModelOpt's, bit for bit; `sweep` searches the block
    scale with the least squared error; `gptq` rounds routed experts for the least error of their outputs on the
    `calibrate` data, `weighted-sweep` only searches their scales, each column's error weighed by its input's energy
    there; both round everything else by `sweep`. input_scale: a positive constant, a file
    (`input_scale.from_file`), or the rule `max` or `headroom` for what is measured on `calibrate`; by default
    `headroom` with data and 1 without; not used by weight-only recipes. calibrate: data on which to measure the input
    scales first, by streaming (`calibrate.run`), or on which gptq rounds, and measures them as it goes;
    calibration_tokens and calibration_length bound the data, memory_budget the resident bytes, device says where.
    workers: threads, by default one per processor. improve: `dst` holds a finished checkpoint of this source and
    recipe, whose experts are replaced by those that gptq rounds, shard by shard; all else of it stays, input scales
    that are not given too (`improve.run`). overwrite: replace a checkpoint in `dst`; the old one stays until the new
    one is complete. force: write what engines are known not to load.
    on_done is told the result while the run can still be resumed: a run is finished once its result was shown.

    Raises HalfbyteError; then `dst` is as it was, but for a `.halfbyte` folder from which the next run resumes.
    """
    began = time.monotonic()
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.named(recipe)
    if rounding not in get_args(Rounding):
        raise UsageError(f"--rounding {rounding}: wanted {' or '.join(get_args(Rounding))}")
    method: OnData | None = None if rounding == "max" or rounding == "sweep" else rounding
    if method and not calibrate:
        raise UsageError(
            f"--rounding {rounding} rounds on data, and there is none", hint="give --calibrate FILE, or use sweep"
        )
    rule = None if improve and input_scale is None else measured_by(chosen, input_scale, calibrate, bool(method))
    scales = known_scales(chosen, input_scale, rule)
    workers = workers if workers is not None else len(os.sched_getaffinity(0))
    if workers < 1 or max_shard_bytes < 1:
        raise UsageError("--workers and --max-shard-size take at least 1")
    src, dst = Path(src), Path(dst)
    bounds = Bounds(calibration_tokens, calibration_length, memory_budget, device, rule or "max")
    if improve:
        if rule is not None:
            raise UsageError(
                f"--improve --input-scale {rule}: scales are not measured while a finished checkpoint is improved",
                hint=f"measure them first: halfbyte calibrate --amax {rule} -o FILE, then give --input-scale FILE",
            )
        if rounding != "gptq":
            raise UsageError(
                f"--improve replaces experts by better ones, --rounding {rounding} has none to give",
                hint="give --rounding gptq --calibrate FILE",
            )
        return improve_checkpoint(
            src,
            dst,
            chosen,
            calibrate,
            bounds,
            input_scales=None if input_scale is None else scales,
            workers=workers,
            dry_run=dry_run,
            overwrite=overwrite,
            force=force,
            progress=progress,
            on_done=on_done,
        )
    with Checkpoint.open(src) as source:
        job = plan_job(source, chosen, max_shard_bytes, force)
        _check_destination(src, dst, overwrite)
        if scales is not None and rule is None:
            check_covered(job, scales)
        layers = rounded_layers(job) if method else set()
        documents = calibration_documents(src, calibrate, bounds) if calibrate else None
        lengths = [len(document.ids) for document in documents.documents] if documents else []
        room = room_for(job, source.config, lengths, bounds, layers)

        def result(resumed: int = 0, measures: Results | None = None) -> QuantizeResult:
            return QuantizeResult.of(
                job,
                source,
                dst,
                began,
                resumed_shards=resumed,
                rounding=rounding,
                input_scale=scales.description if scales else None,
                roles=[row.as_json() for row in role_table(job, measures or {})],
                warnings=[*job.warnings, *(scales.warnings if scales else [])],
                dry_run=dry_run,
                room=room if dry_run else None,
            )

        if dry_run:
            return result()
        task = task_on_data(src, documents, job, layers, method, bounds) if method and documents else None
        created = _make_folder(dst)
        try:
            check_room(dst, job, room, task is not None)
            if calibrate and task is None:
                scales = calibrated_scales(src, dst, calibrate, bounds, progress)
                check_covered(job, scales)
            fingerprint = _fingerprint(source, job, rounding, scales, None if task is None else task.key)
            journal = Journal.open(dst, fingerprint, discard=overwrite, note=(progress or Silent()).note)
        except BaseException:
            if created:
                _remove_empty(dst)
            raise
        try:
            on_data: DataRounding | None = None
            if task is not None:
                on_data = round_on_data(task, dst, job, progress or Silent())
                if rule:
                    scales = measured_scales(dst / STAGING / ACTIVATIONS)
                    check_covered(job, scales)
            rest: EncoderRounding = FALLBACK if rounding == "gptq" or rounding == "weighted-sweep" else rounding
            experts = None if on_data is None else on_data.experts
            run = Run(source, job, journal, dst, rest, scales, workers, progress or Silent(), experts)
            measures = run.execute()
            names = _write_metadata(source, job, journal, run.output_files(), dst, rounding, scales, measures, on_data)
            publish(journal.folder, dst, [shard.file for shard in job.shards], names)
            done = result(run.resumed_shards, measures)
            if on_done is not None:
                on_done(done)
            journal.drop()
        except BaseException as error:
            _give_up(error, journal, dst, created)
            raise
    return done


def _check_destination(src: Path, dst: Path, overwrite: bool) -> None:
    check_apart(src, dst)
    if dst.is_symlink() and not dst.exists():
        raise OutputError(f"{dst}: is a link to {os.readlink(dst)}, which is not there", hint="remove the link")
    if dst.exists() and not dst.is_dir():
        raise OutputError(f"{dst}: is not a folder", hint="choose a folder")
    if dst.is_dir() and any(dst.iterdir()) and not _holds_unfinished(dst) and not overwrite:
        raise OutputError(
            f"{dst}: is not empty", hint="choose another folder, or replace the checkpoint with --overwrite"
        )


def _holds_unfinished(dst: Path) -> bool:
    """Whether all that `dst` holds is an unfinished run, or its journal says whose it is."""
    return has_journal(dst) or ((dst / STAGING).is_dir() and not (dst / "config.json").exists())


def _make_folder(dst: Path) -> bool:
    """Create DST; returns whether it is new."""
    try:
        created = not dst.exists()
        dst.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(dst, error) from None
    return created


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _give_up(error: BaseException, journal: Journal, dst: Path, created: bool) -> None:
    """After an error: keep what the same command can go on from, and nothing else.

    A full disk or Ctrl-C leaves the finished shards. Bad input would fail again, and mending it makes another job;
    but hours of rounding on data end with nothing but NaN, which is in the model or the data.
    """
    worth = (f"{FOLDER}/*.json", f"{ACTIVATIONS}/**/{STATE}", f"{ACTIVATIONS}/openness-*")
    rounded = any(path for pattern in worth for path in journal.folder.glob(pattern))
    if rounded:
        resumable = not isinstance(error, NonFiniteError)
    else:
        resumable = bool(journal.shards) and (isinstance(error, OutputError) or not isinstance(error, HalfbyteError))
    if resumable:
        journal.close()
        return
    journal.drop()
    if created:
        _remove_empty(dst)


def _fingerprint(source: Checkpoint, job: Job, rounding: str, scales: InputScales | None, experts: str | None) -> str:
    """Identifies the job: equal fingerprints give equal bytes, shard by shard. experts: key of those rounded on data,
    from which scales that are measured in the same pass follow."""
    return fingerprint_of(
        {
            "halfbyte": __version__,
            "source": source_identity(source.shards.values()),
            "config": source.config,
            "recipe": job.recipe.model_dump(mode="json"),
            "rounding": rounding if experts is None else [rounding, experts],
            "input_scale": None if scales is None else [scales.description, scales.sha256],
            "shards": [[shard.file, shard.bytes, len(shard.units)] for shard in job.shards],
        }
    )


def _write_metadata(
    source: Checkpoint,
    job: Job,
    journal: Journal,
    shards: list[File],
    dst: Path,
    rounding: str,
    scales: InputScales | None,
    results: dict[str, tuple[float, Measure]],
    on_data: DataRounding | None,
) -> list[str]:
    """Stage everything beside the weights. Returns the names in the order in which they are to appear: config last."""
    side = carried(source.folder)
    contents = {name: path.read_bytes() for name, path in side.items()}
    sources = [
        File(file=name, bytes=source.shards[name].bytes, sha256=digest)
        for name, digest in sorted(journal.sources.items())
    ]
    for path in sorted([*side.values(), *_source_metadata(source.folder)]):
        sources.append(_file(path.name, path.read_bytes()))
    metadata = metadata_files(source.config, job)
    staged = contents | metadata
    written = shards + [_file(name, data) for name, data in sorted(staged.items())]
    about = None if on_data is None else on_data.record(job)
    document = dossier(job, source.folder.resolve().name, sources, written, rounding, scales, results, about)
    card = contents.get(SOURCE_CARD)
    extra = {
        CARD: model_card(document, card.decode("utf-8", "replace") if card else None).encode(),
        DOSSIER: document.to_bytes(),
    }
    for name, data in (staged | extra).items():
        write_staged(journal.folder, name, data)
    return [*contents, CARD, DOSSIER, *metadata]


def _file(name: str, content: bytes) -> File:
    return File(file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _source_metadata(folder: Path) -> list[Path]:
    return [path for name in ("config.json", INDEX_NAME) if (path := folder / name).exists()]
