"""The finished checkpoint that is to be improved: its evidence, and where its tensors lie."""

from dataclasses import dataclass, replace
from pathlib import Path

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError, OutputError, UnsupportedError, said
from halfbyte.evidence.dossier import Dossier, RecipeRecord
from halfbyte.evidence.names import DOSSIER
from halfbyte.formats.catalogue import NVFP4, NVFP4_WEIGHT_ONLY, QUANTIZED
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.layout import OutputShard, tensors_of
from halfbyte.quantize.units import Unit
from halfbyte.recipes.recipe import Recipe

ANEW = said("quantize it anew without {improve}")
PACKED = (NVFP4, NVFP4_WEIGHT_ONLY)


@dataclass(frozen=True)
class Finished:
    """A folder and its evidence."""

    folder: Path
    dossier: Dossier

    @classmethod
    def open(cls, folder: Path) -> "Finished":
        """Raises OutputError if the folder holds no finished checkpoint of ours."""
        if not (folder / DOSSIER).is_file() or not (folder / "config.json").is_file():
            unfinished = (folder / STAGING).is_dir() and not (folder / "config.json").is_file()
            what = "an unfinished run" if unfinished else f"no finished checkpoint with {DOSSIER}"
            raise OutputError(
                said(
                    "{folder}: holds {what}, {improve} takes a checkpoint that halfbyte quantize has finished",
                    folder=folder,
                    what=what,
                ),
                hint=said("run `halfbyte quantize` without {improve} first"),
            )
        return cls(folder, Dossier.read(folder / DOSSIER))

    @property
    def keeps_format(self) -> bool:
        """Whether it was written with `keep_format`: something beside NVFP4 is of fewer bits."""
        return any(row.format in QUANTIZED and row.format not in PACKED for row in self.dossier.roles)

    def sha256_of_source(self) -> dict[str, str]:
        """Of the source's shards and config.json, as they were read."""
        rows = self.dossier.source.files
        return {row.file: row.sha256 for row in rows if row.file.endswith((".safetensors", "config.json"))}

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises OutputError if the checkpoint was made by a recipe that gives other tensors."""
        made_by = self.dossier.recipe
        if not made_by.gives_the_same(RecipeRecord(**recipe.model_dump(mode="json"))):
            name = made_by.name[:80]
            raise OutputError(
                f"{self.folder}: was made by recipe {name}, not by {recipe.name}",
                hint=said("give {recipe} {name}", name=name),
            )

    def check_source_sizes(self, source: Checkpoint) -> None:
        """Raises OutputError for another source, as far as names and sizes tell."""
        rows = self.dossier.source.files
        recorded = {row.file: row.bytes for row in rows if row.file.endswith(".safetensors")}
        for name in sorted(recorded.keys() | source.shards.keys()):
            ours = source.shards[name].bytes if name in source.shards else "no"
            theirs = recorded.get(name, "no")
            if ours != theirs:
                raise another_source(self.folder, f"{name} has {ours} bytes, {DOSSIER} has {theirs}")

    def lay_out(self, job: Job) -> Job:
        """The job, its units in the files and at the offsets where the finished checkpoint has them.

        Raises CheckpointError if the checkpoint holds other tensors than the job gives, UnsupportedError if tensors
        that must change together lie in different files.
        """
        with Checkpoint.open(self.folder) as checkpoint:
            units: dict[str, list[Unit]] = {name: [] for name in checkpoint.shards}
            wanted: set[str] = set()
            for unit in (unit for shard in job.shards for unit in shard.units):
                tensors = tensors_of(unit, job.recipe.algorithm)
                wanted |= {name for name, *_ in tensors}
                units[self._file_of(tensors, checkpoint)].append(unit)
            for name in checkpoint.tensors.keys() - wanted:
                raise CheckpointError(f"{self.folder}: holds {name}, which recipe and source do not give", hint=ANEW)
            shards = [_as_it_lies(checkpoint, name, units[name]) for name in checkpoint.shards]
        return replace(job, shards=shards)

    def _file_of(self, tensors: list[tuple[str, str, tuple[int, ...], int]], checkpoint: Checkpoint) -> str:
        files = set()
        for name, dtype, shape, _ in tensors:
            found = checkpoint.tensors.get(name)
            if found is None or (found.dtype, found.shape) != (dtype, shape):
                there = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise CheckpointError(f"{self.folder}: {name} is {there}, wanted {dtype} {list(shape)}", hint=ANEW)
            files.add(found.shard)
        if len(files) > 1:
            raise UnsupportedError(
                f"{self.folder}: the tensors of {tensors[0][0].rpartition('.')[0]} and its group lie in "
                f"{' and '.join(sorted(files))}, which cannot be replaced in one step",
                hint=ANEW,
            )
        return files.pop()


def another_source(folder: Path, difference: str) -> OutputError:
    return OutputError(
        f"{folder}: was made from another source: {difference}",
        hint=said(f"give the source it was made from, or {ANEW.template}"),
    )


def _as_it_lies(checkpoint: Checkpoint, name: str, units: list[Unit]) -> OutputShard:
    shard = checkpoint.shards[name]
    offsets = {tensor.name: tensor.start for tensor in checkpoint.tensors.values() if tensor.shard == name}
    header = bytearray(min(offsets.values(), default=shard.bytes))
    shard.read_into(memoryview(header), 0)
    return OutputShard(name, units, bytes(header), offsets, shard.bytes)
