"""`quantize --improve`: experts rounded on data take the place of a finished checkpoint's, shard by shard.

The source runs through the model as with `--rounding gptq`. Each rounded expert waits in `DST/.halfbyte/experts`; as
soon as all of a shard are there, the shard is replaced (`exchange`). Between two renames DST is a whole checkpoint,
some experts old and some new, and `halfbyte.json` says so.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte import __version__
from halfbyte.checkpoint.files import check_folder
from halfbyte.checkpoint.names import is_store
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.targets import is_remote
from halfbyte.checkpoint.writer import write_whole
from halfbyte.data.documents import Documents
from halfbyte.disk import check_apart
from halfbyte.errors import HalfbyteError, OutputError, UsageError, options_called, said
from halfbyte.evidence.names import DECISION, DOSSIER
from halfbyte.improve.checks import checked_hashes, nothing_to_do
from halfbyte.improve.document import improved, rest_of
from halfbyte.improve.exchange import Exchange
from halfbyte.improve.finished import Finished
from halfbyte.improve.store import ImprovedExperts
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.calibrated import ACTIVATIONS, OURS, DataBounds, calibration_documents, known_scales, measured_by
from halfbyte.quantize.card import model_card
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job, check_covered, plan_job
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.prepare import chosen_recipe
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.room import Room, check_room, room_to_improve
from halfbyte.quantize.rounding.stage import DataRounding, rounded_layers, task_on_data
from halfbyte.quantize.rounding.store import FOLDER, experts_of
from halfbyte.quantize.side_files import CARD, SOURCE_CARD
from halfbyte.recipes.recipe import Recipe

if TYPE_CHECKING:
    from halfbyte.quantize.rounding.experts import Task

WHOLE_SHARDS = 5_000_000_000
"""Any size does: the units lie where the finished checkpoint has them."""


def improve(
    src: str | Path,
    dst: str | Path,
    options: QuantizeOptions | None = None,
    *,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
    **given: Any,
) -> QuantizeResult:
    """Round the routed experts of the finished checkpoint `dst` on the `calibrate` data, from its source `src`.

    Whatever else `dst` holds keeps its bytes; so do the input scales, if none are given. Options as of `quantize`, by
    name in `given` instead of `options`; overwrite: forget an unfinished run of another job. on_done: see `quantize`.
    Raises HalfbyteError; `dst` then loads as before.
    """
    began = time.monotonic()
    options, progress = options or QuantizeOptions(**given), progress or Silent()
    if is_store(str(dst)):
        raise UsageError(
            said("{improve} exchanges shards of a folder, not {value}", value=str(dst)[:200]),
            hint=said("copy it here, or quantize it anew with {rounding} gptq"),
        )
    dst = Path(dst)
    recipe = chosen_recipe(options)
    input_scales = _given_scales(recipe, options)
    if not is_remote(str(src)):
        check_apart(Path(src), dst)
    if not options.follow_links and dst.is_dir():
        check_folder(dst, options.follow_links)
    with Checkpoint.open(src, options.follow_links) as source:
        prepared = _prepare(source, dst, options, recipe, input_scales, began)
        if options.dry_run:
            return prepared.result(len(prepared.targets))
        task = task_on_data(source, prepared.documents, prepared.job, prepared.layers, "gptq", prepared.bounds)
        journal = _journal(prepared, task, progress)
        try:
            done = _exchanged(prepared, task, journal, progress)
            if on_done is not None:
                on_done(done)
            journal.drop()
        except BaseException as error:
            _give_up(error, journal)
            raise
    return done


@dataclass(frozen=True)
class _Prepared:
    """What a run does. input_scales: those to put in, None to leave those that are there. targets: the shards that
    change. room: on the disk. began: `time.monotonic()`."""

    source: Checkpoint
    options: QuantizeOptions
    recipe: Recipe
    input_scales: InputScales | None
    finished: Finished
    job: Job
    layers: set[int]
    targets: list[OutputShard]
    bounds: DataBounds
    documents: Documents
    room: Room
    began: float

    @property
    def dst(self) -> Path:
        return self.finished.folder

    def result(self, replaced: int, resumed: int = 0) -> QuantizeResult:
        """replaced, resumed: shards, in all and by an earlier run."""
        dossier = Finished.open(self.dst).dossier
        scale, dry_run = dossier.input_scale, self.options.dry_run
        return QuantizeResult.of(
            self.job,
            self.source,
            self.dst,
            self.began,
            resumed_shards=resumed,
            rounding="gptq",
            input_scale=None if scale is None else scale.description,
            roles=[row.as_json() for row in dossier.roles],
            warnings=self.job.warnings + _stale(self.dst),
            dry_run=dry_run,
            replaced_shards=replaced,
            room=self.room if dry_run else None,
        )


def _prepare(
    source: Checkpoint,
    dst: Path,
    options: QuantizeOptions,
    recipe: Recipe,
    input_scales: InputScales | None,
    began: float,
) -> _Prepared:
    """Raises HalfbyteError for a `dst` that is not this recipe's checkpoint of this source."""
    finished = Finished.open(dst)
    finished.check_recipe(recipe)
    finished.check_source_sizes(source)
    keep_format = options.keep_format or finished.keeps_format
    job = finished.lay_out(plan_job(source, recipe, WHOLE_SHARDS, options.force, keep_format))
    if input_scales is not None:
        check_covered(job, input_scales)
    layers = rounded_layers(job)
    targets = _targets(job, layers, input_scales)
    bounds = DataBounds.of(options, None)
    documents = calibration_documents(source.folder, options.calibrate, bounds)
    lengths = [len(document.ids) for document in documents.documents]
    room = room_to_improve(job, source.config, targets, lengths, bounds, layers)
    return _Prepared(
        source, options, recipe, input_scales, finished, job, layers, targets, bounds, documents, room, began
    )


def _exchanged(prepared: _Prepared, task: "Task", journal: Journal, progress: Progress) -> QuantizeResult:
    """Round, and put every shard in its place."""
    finished, targets = prepared.finished, prepared.targets
    dst, threads = prepared.dst, prepared.options.threads
    if nothing_to_do(finished.dossier, task, prepared.input_scales):
        return prepared.result(0)
    check_room(dst, prepared.job, prepared.room, on_data=True)
    hashes = checked_hashes(finished, prepared.source, journal, threads, progress)
    experts = ImprovedExperts(dst, task.key, prepared.layers, targets)
    scales, about = prepared.input_scales, task.about_data
    exchange = Exchange(prepared.source, dst, journal, experts, targets, hashes, scales, threads, progress, about)
    resumed = exchange.resume()
    rounding = _round(task, exchange, experts, progress)
    _finish(finished, prepared.job, exchange, DataRounding(experts, rounding, rest_of(finished.dossier)))
    return prepared.result(len(targets), resumed)


def _given_scales(recipe: Recipe, options: QuantizeOptions) -> InputScales | None:
    """Input scales to put in, None to leave those that are there. Raises UsageError for what has no experts to give,
    or would have to be measured."""
    rule = None if options.input_scale is None else measured_by(recipe, options)
    scales = known_scales(recipe, options, rule)
    if rule is not None:
        measure = "measure them first: halfbyte calibrate {amax} {rule} -o FILE, then give {input_scale} FILE"
        raise UsageError(
            said(
                "{improve} {input_scale} {rule}: scales are not measured while a finished checkpoint is improved",
                rule=rule,
            ),
            hint=said(measure, rule=rule),
        )
    if options.rounding != "gptq":
        raise UsageError(
            said(
                "{improve} replaces experts by better ones, {rounding} {given} has none to give", given=options.rounding
            ),
            hint=said("give {rounding} gptq {calibrate} FILE"),
        )
    return None if options.input_scale is None else scales


def _stale(dst: Path) -> list[str]:
    """What stands beside the weights and is about other bytes by now."""
    decided = (dst / DECISION).exists()
    return [f"{DECISION} decides about the bytes before: run `halfbyte gate` again"] if decided else []


def _targets(job: Job, layers: set[int], input_scales: InputScales | None) -> list[OutputShard]:
    """The shards that change."""
    scaled = input_scales is not None
    return [
        shard
        for shard in job.shards
        if experts_of(shard, layers) or (scaled and any(unit.linears for unit in shard.units))
    ]


def _journal(prepared: _Prepared, task: "Task", progress: Progress) -> Journal:
    """Locks `dst` against other runs; from here on a plain quantize refuses it too."""
    source, input_scales = prepared.source, prepared.input_scales
    fingerprint = fingerprint_of(
        {
            "improve": __version__,
            "source": source_identity(source.shards.values()),
            "config": source.config,
            "recipe": prepared.recipe.model_dump(mode="json"),
            "experts": task.key,
            "input_scale": None if input_scales is None else [input_scales.description, input_scales.sha256],
        }
    )
    return Journal.open(prepared.dst, fingerprint, discard=prepared.options.overwrite, note=progress.note)


def _round(task: "Task", exchange: Exchange, experts: ImprovedExperts, progress: Progress) -> dict[str, Any]:
    """The pass over the model. Returns its evidence; every shard is replaced afterwards."""
    from halfbyte.quantize.rounding.experts import round_experts

    work = experts.folder.parent / ACTIVATIONS
    experts.on_complete = exchange.replace
    with options_called(**OURS):
        evidence = round_experts(task, work, experts, progress)
    missing = exchange.missing()
    if missing:
        raise OutputError(
            f"{experts.folder}: {len(missing)} shard(s) lack experts that the pass had rounded, first {missing[0]}",
            hint="run the same command again: it finds what is missing and rounds only that again",
        )
    return evidence


def _finish(finished: Finished, job: Job, exchange: Exchange, rounding: DataRounding) -> None:
    """Evidence and card of the improved checkpoint; the evidence last, as it ends the run."""
    dossier = improved(
        Finished.open(finished.folder).dossier,
        job,
        exchange.hashes,
        exchange.results,
        rounding.record(job),
        exchange.input_scales,
    )
    source_card = finished.folder / SOURCE_CARD
    card = source_card.read_bytes().decode("utf-8", "replace") if source_card.exists() else None
    write_whole(finished.folder / CARD, model_card(dossier, card).encode())
    dossier.write(finished.folder / DOSSIER)


def _give_up(error: BaseException, journal: Journal) -> None:
    """Keep what the same command can go on from; a refusal leaves nothing behind."""
    started = journal.shards or any((journal.folder / FOLDER).glob("*.json"))
    if isinstance(error, HalfbyteError) and not started:
        journal.drop()
    else:
        journal.close()
