"""All that is read, decided and checked before a run writes anything."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import Documents
from halfbyte.quantize.calibrated import DataBounds, calibration_documents, known_scales, measured_by
from halfbyte.quantize.dossier import Results, role_table
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job, check_covered, plan_job
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.result import Fetch, QuantizeResult
from halfbyte.quantize.room import Room, room_for
from halfbyte.quantize.rounding.stage import rounded_layers, task_on_data
from halfbyte.quantize.side_files import SideFiles, side_files
from halfbyte.recipes.recipe import Recipe

if TYPE_CHECKING:
    from halfbyte.quantize.rounding.experts import Task


@dataclass(frozen=True)
class Prepared:
    """What a run does. rule: by which it measures its input scales; None if it measures none.

    side: what comes along beside the weights. known_scales: until then, or for good. documents: the data. task: the
    rounding on data. room: on the disk. began: `time.monotonic()`.
    """

    source: Checkpoint
    dst: Path
    options: QuantizeOptions
    job: Job
    side: SideFiles
    rule: str | None
    known_scales: InputScales | None
    bounds: DataBounds
    documents: Documents | None
    task: "Task | None"
    room: Room
    began: float

    def result(
        self, scales: InputScales | None, results: Results | None = None, resumed_shards: int = 0
    ) -> QuantizeResult:
        """results: of what was rounded; None for a dry run."""
        return QuantizeResult.of(
            self.job,
            self.source,
            self.dst,
            self.began,
            resumed_shards=resumed_shards,
            rounding=self.options.rounding,
            input_scale=scales.description if scales else None,
            roles=[row.as_json() for row in role_table(self.job, results or {})],
            warnings=[*self.job.warnings, *(scales.warnings if scales else [])],
            dry_run=self.options.dry_run,
            room=self.room if self.options.dry_run else None,
            fetch=Fetch.of(self.job.source_bytes) if self.options.dry_run and self.source.is_remote else None,
        )


def chosen_recipe(options: QuantizeOptions) -> Recipe:
    """The recipe that the options name, or are given. Raises RecipeError."""
    return options.recipe if isinstance(options.recipe, Recipe) else Recipe.named(options.recipe)


def prepare(source: Checkpoint, dst: Path, options: QuantizeOptions, began: float) -> Prepared:
    """began: `time.monotonic()`. Raises HalfbyteError for whatever could be known beforehand; nothing is written, and
    whether `dst` takes it is the caller's question."""
    recipe = chosen_recipe(options)
    rule = measured_by(recipe, options)
    scales, bounds = known_scales(recipe, options, rule), DataBounds.of(options, rule)
    job = plan_job(source, recipe, options.max_shard_bytes, options.force, options.keep_format)
    side = side_files(source)
    job = replace(job, warnings=[*job.warnings, *side.warnings])
    if scales is not None and rule is None:
        check_covered(job, scales)
    method = options.on_data
    layers = rounded_layers(job) if method else set()
    documents = calibration_documents(source.folder, options.calibrate, bounds) if options.calibrate else None
    lengths = [len(document.ids) for document in documents.documents] if documents else []
    room = room_for(job, source.config, lengths, bounds, layers)
    task = None
    if method and documents and not options.dry_run:
        task = task_on_data(source, documents, job, layers, method, bounds)
    return Prepared(source, dst, options, job, side, rule, scales, bounds, documents, task, room, began)
