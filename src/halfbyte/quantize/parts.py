"""`quantize --part i/n`: one job on several machines that share where the output comes to lie (`place`).

A piece is an output shard, or a source shard to be hashed. Part i begins with the pieces whose number leaves i over
when divided by n; then it helps: it takes what parts that have begun did not come to, and what dead ones left
(`leases`).
Everything that a part writes follows from source and options alone, so the joined checkpoint (`finish`) has the bytes
of one run.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UsageError, said
from halfbyte.formats.nvfp4.codec import Rounding
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.leases import Leases
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.quantize.pipeline import fingerprint
from halfbyte.quantize.place import Place, place_of
from halfbyte.quantize.prepare import Prepared, prepare
from halfbyte.quantize.shared_job import shared_job
from halfbyte.quantize.threads import Run

WAIT_SECONDS = 0.5
IN_FLIGHT = 2
"""Pieces at a time: one is synced and hashed while the next is encoded."""


@dataclass(frozen=True)
class PartResult:
    """What one part did. shards: written by it, taken_over those of them that had been begun before. left: shards that
    nobody has done, for their parts have not begun."""

    output: str
    part: int
    parts: int
    shards: int
    taken_over: int
    left: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class PartJournal(Journal):
    """What `Run` notes, as records of leases. sources: all that this part need not hash."""

    def __init__(self, leases: Leases, place: Place, folder: Path, sources: dict[str, str]) -> None:
        self.folder, self.sources, self.shards = folder, sources, {}
        self._leases, self._place = leases, place

    def shard_done(self, file: str, sha256: str, size: int, measures: dict[str, Any]) -> None:
        """Move the shard to where all parts put theirs, then say so."""
        told = self._place.put(self.folder / file, file)
        self.shards[file] = {"shard": file, "sha256": sha256, "bytes": size, "measures": measures, **told}
        self._leases.done(file, self.shards[file])

    def source_done(self, file: str, sha256: str) -> None:
        self.sources[file] = sha256

    def close(self) -> None:
        pass


def quantize_part(
    src: str | Path, dst: str | Path, options: QuantizeOptions, part: PartOptions, progress: Progress | None = None
) -> PartResult:
    """Do one part. Raises HalfbyteError; what was done stays for the others, and for the same part begun again."""
    began, progress = time.monotonic(), progress or Silent()
    check_options(options)
    index, count = part.place
    with Checkpoint.open(src, options.follow_links) as source:
        place = place_of(dst)
        place.check(source, options.overwrite)
        prepared = prepare(source, Path(place.where), options, began)
        name = f"{index}-of-{count}"
        with place.opened(prepared.job):
            shared_job(place, fingerprint(prepared, prepared.known_scales), options)
            with (
                place.alone(f"part-{name}", f"{place.where}: part {index} of {count}") as folder,
                Leases(place, f"{name}{place.worker}", part.lease_seconds) as leases,
            ):
                work = Part(prepared, place, folder, leases, index, count, progress)
                work.run()
    return PartResult(
        place.where, index, count, work.shards, work.taken_over, work.left, round(time.monotonic() - began, 3)
    )


class Part:
    """The pieces of part `index` of `count`, then those that others leave. folder: here, for shards that are made."""

    def __init__(
        self,
        prepared: Prepared,
        place: Place,
        folder: Path,
        leases: Leases,
        index: int,
        count: int,
        progress: Progress,
    ) -> None:
        self._prepared, self._place, self._folder = prepared, place, folder
        self._leases, self._progress = leases, progress
        self._index, self._count = index, count
        self.shards = self.taken_over = self.left = 0
        self._lock = threading.Lock()
        self._all: dict[str, OutputShard | None] = {shard.file: shard for shard in prepared.job.shards}
        self._all |= {source_piece(name): None for name in prepared.source.shards}

    def run(self) -> None:
        pieces, done = list(self._all), self._leases.all_done()
        mine = [piece for number, piece in enumerate(pieces) if number % self._count == self._index]
        total, already = (sum(map(self._bytes, some)) for some in (mine, [one for one in mine if one in done]))
        self._progress.start(f"quantize, part {self._index} of {self._count}", total, already)
        with ThreadPoolExecutor(IN_FLIGHT, "piece") as pool:
            futures = [pool.submit(self._try, piece) for piece in mine if piece not in done]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        waiting = False
        while open_pieces := self._open(pieces):
            taken = [piece for piece in reversed(open_pieces) if self._try(piece)]
            if not taken:
                if not waiting:
                    self._progress.note(f"waiting for other parts: {len(open_pieces)} piece(s) are in their hands")
                waiting = True
                time.sleep(min(WAIT_SECONDS, self._leases.limit_seconds / 4))
        done = self._leases.all_done()
        self.left = sum(1 for piece, shard in self._all.items() if shard and piece not in done)

    def _bytes(self, piece: str) -> int:
        shard = self._all[piece]
        return 0 if shard is None else sum(unit.source_bytes for unit in shard.units)

    def _open(self, pieces: list[str]) -> list[str]:
        """What is not done, of parts that have begun: those that have not will do theirs when they come."""
        names = (worker.partition(".")[0] for worker in self._leases.workers())
        begun = {name.partition("-")[0] for name in names if name.endswith(f"-of-{self._count}")}
        done = self._leases.all_done()
        return [
            piece for number, piece in enumerate(pieces) if str(number % self._count) in begun and piece not in done
        ]

    def _try(self, piece: str) -> bool:
        """Do a piece, if it may be taken. Whether it was."""
        fence = self._leases.take(piece)
        if fence is None:
            return False
        shard = self._all[piece]
        if shard is None:
            name = piece.removeprefix(_SOURCE)
            digest = self._prepared.source.shards[name].sha256(lambda: None)
            self._leases.done(piece, {"source": name, "sha256": digest})
        else:
            self._write(shard)
            with self._lock:
                self.shards += 1
                self.taken_over += fence > 1
        return True

    def _write(self, shard: OutputShard) -> None:
        """One shard, in a folder of this part: who was only thought dead does not write into a file of another."""
        prepared, options = self._prepared, self._prepared.options
        journal = PartJournal(self._leases, self._place, self._folder, dict.fromkeys(prepared.source.shards, ""))
        alone = replace(prepared.job, shards=[shard])
        quiet = _Advancing(self._progress)
        scales, rounding = prepared.known_scales, encoder_rounding(options)
        Run(prepared.source, alone, journal, self._folder, rounding, scales, options.threads, quiet).execute()


class _Advancing(Silent):
    """Progress of a shard, added to that of the part."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def advance(self, done_bytes: int) -> None:
        self._progress.advance(done_bytes)

    def note(self, message: str) -> None:
        self._progress.note(message)


_SOURCE = "source-"


def source_piece(name: str) -> str:
    return _SOURCE + name


def encoder_rounding(options: QuantizeOptions) -> Rounding:
    return "sweep" if options.rounding == "sweep" else "max"


def check_options(options: QuantizeOptions, asked: str = "part") -> None:
    """Raises UsageError for what does not go in parts. asked: the option that asks for them."""
    if options.on_data or options.calibrate:
        raise UsageError(
            said(f"{{{asked}}} and {{calibrate}}: each part would run the whole model, layer by layer, for itself"),
            hint=said(
                "measure the scales once with `halfbyte calibrate` and give the file as {input_scale}; round on data "
                "in one process, with {rounding} gptq"
            ),
        )
    if options.dry_run:
        raise UsageError(said(f"{{{asked}}} writes; {{dry_run}} is for the whole"))
