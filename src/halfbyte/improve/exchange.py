"""One shard replaced by another, so that a kill at any moment leaves a checkpoint that loads and evidence that holds.

    1. the new shard is written in the staging folder, synced, hashed, and noted in the journal
    2. the evidence names its hash beside the old one's
    3. one rename puts it in the old one's place
    4. the evidence has the new hash alone

A run that was killed does the missing steps of its noted shards first.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import ShardWriter, hash_file
from halfbyte.evidence.calibration import DataUsed
from halfbyte.evidence.dossier import Dossier, File, Improving
from halfbyte.evidence.names import DOSSIER
from halfbyte.formats.nvfp4.codec import Measure
from halfbyte.improve.document import in_progress
from halfbyte.improve.store import ImprovedExperts
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.rounding.store import experts_of
from halfbyte.quantize.staging import put_in_place, staged_files
from halfbyte.quantize.threads import noted_measures, results_of
from halfbyte.quantize.units import Unit
from halfbyte.quantize.work import Worker

COPY_BYTES = 4 << 20
ROUNDED_PARTS = ("weight", "weight_scale", "weight_scale_2")


class Exchange:
    """Replaces the shards of one checkpoint. hashes: SHA-256 of all its shards as they are now."""

    def __init__(
        self,
        source: Checkpoint,
        dst: Path,
        journal: Journal,
        experts: ImprovedExperts,
        targets: list[OutputShard],
        hashes: dict[str, str],
        input_scales: InputScales | None,
        workers: int,
        progress: Progress,
        data: DataUsed,
    ) -> None:
        """targets: the shards to replace. input_scales: None if they stay. data: the experts are rounded on."""
        self._source, self._dst, self._journal, self._experts = source, dst, journal, experts
        self.targets, self.hashes, self.input_scales = targets, hashes, input_scales
        self._workers, self._progress, self._data = workers, progress, data
        self._placed: set[str] = set()

    @property
    def results(self) -> dict[str, tuple[float, Measure]]:
        """By module, of all shards in place."""
        return results_of(self._journal, [shard.file for shard in self.targets if shard.file in self._placed])

    def resume(self) -> int:
        """Finish what an earlier run began, and replace the shards whose experts it had rounded.

        Returns how many shards it had replaced.
        """
        for shard in self.targets:
            staged, _ = staged_files(self._dst, shard.file)
            noted = self._journal.shards.get(shard.file)
            if noted and noted["sha256"] == self.hashes[shard.file]:
                self._placed.add(shard.file)
                self._drop(shard)
            elif noted and staged.exists() and hash_file(staged) == noted["sha256"]:
                self._put_in_place(shard)
        if Dossier.read(self._dst / DOSSIER).improving is not None:
            self._write_evidence(None)
        resumed = len(self._placed)
        for shard in self.targets:
            if shard.file not in self._placed and not self._experts.missing(shard):
                self.replace(shard)
        return resumed

    def missing(self) -> list[str]:
        """Shards that are still to be replaced."""
        return [shard.file for shard in self.targets if shard.file not in self._placed]

    def replace(self, shard: OutputShard) -> None:
        """All experts of the shard are rounded: replace it. Raises OutputError where the disk refuses."""
        self._source.check_unchanged()
        results, digest = self._write(shard)
        self._journal.shard_done(shard.file, digest, shard.bytes, noted_measures(results))
        self._put_in_place(shard)

    def _write(self, shard: OutputShard) -> tuple[dict[str, tuple[float, Measure]], str]:
        staged, old = staged_files(self._dst, shard.file)
        experts = list(experts_of(shard, self._experts.layers).values())
        scaled = [] if self.input_scales is None else shard.units
        new = {f"{linear.role.module}.{part}" for unit in experts for linear in unit.linears for part in ROUNDED_PARTS}
        new |= {f"{linear.role.module}.input_scale" for unit in scaled for linear in unit.linears}
        out = ShardWriter(staged, shard.header, shard.bytes)
        try:
            _copy(old, out, _spans(shard, new))
            for unit in scaled:
                self._write_scales(unit, shard, out)
            with ThreadPoolExecutor(self._workers) as pool:
                results: dict[str, tuple[float, Measure]] = {}
                for found in pool.map(lambda unit: self._worker().run(unit, shard, out), experts):
                    results |= found
        except BaseException:
            out.abandon()
            raise
        return results, out.finish()

    def _worker(self) -> Worker:
        return Worker(self._source, "max", None, _nothing, _nothing, self._experts)

    def _write_scales(self, unit: Unit, shard: OutputShard, out: ShardWriter) -> None:
        assert self.input_scales is not None
        for group in unit.sharing():
            for linear in group:
                scale = self.input_scales.of(linear.role, tuple(member.role.module for member in group))
                out.write(memoryview(np.float32(scale).tobytes()), shard.offsets[f"{linear.role.module}.input_scale"])

    def _put_in_place(self, shard: OutputShard) -> None:
        noted = self._journal.shards[shard.file]
        self._write_evidence(File(file=shard.file, bytes=noted["bytes"], sha256=noted["sha256"]))
        put_in_place(self._dst, shard.file)
        self._placed.add(shard.file)
        self.hashes[shard.file] = noted["sha256"]
        self._write_evidence(None)
        self._drop(shard)
        self._progress.note(f"replaced {shard.file}, {len(self._placed)} of {len(self.targets)} shards")

    def _drop(self, shard: OutputShard) -> None:
        for layer, expert in experts_of(shard, self._experts.layers):
            self._experts.drop(layer, expert)

    def _write_evidence(self, following: File | None) -> None:
        """Read again each time: a comparison may have been added meanwhile."""
        state = Improving(
            rounding="gptq",
            data=self._data,
            shards_done=len(self._placed),
            shards=len(self.targets),
            next=following,
        )
        dossier = Dossier.read(self._dst / DOSSIER)
        in_progress(dossier, self.hashes, self.results, state).write(self._dst / DOSSIER)


def _nothing(*_: object) -> None:
    pass


def _spans(shard: OutputShard, new: set[str]) -> Iterator[tuple[int, int]]:
    """First byte and end of everything behind the header that no tensor of `new` covers."""
    inside = sorted((start, name) for name, start in shard.offsets.items())
    ends = [start for start, _ in inside[1:]] + [shard.bytes]
    for (start, name), end in zip(inside, ends, strict=True):
        if name not in new:
            yield start, end


def _copy(old: Path, out: ShardWriter, spans: Iterator[tuple[int, int]]) -> None:
    file = Shard(old)
    try:
        for first, end in spans:
            for start in range(first, end, COPY_BYTES):
                chunk = memoryview(bytearray(min(COPY_BYTES, end - start)))
                file.read_into(chunk, start)
                out.write(chunk, start)
    finally:
        file.close()
