"""`quantize --part i/n`: one job on several machines that share the output folder, and `--finish`, which joins it.

A piece is an output shard, or a source shard to be hashed. Part i begins with the pieces whose number leaves i over
when divided by n; then it helps: it takes what parts that have begun did not come to, and what dead ones left
(`leases`).
Everything that a part writes follows from source and options alone, so the joined checkpoint has the bytes of one run.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.resume import locked
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import hash_file, output_error
from halfbyte.errors import OutputError, UsageError, said
from halfbyte.formats.nvfp4.codec import Rounding
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.destination import new_folder
from halfbyte.quantize.journal import STAGING, Journal, has_journal
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.leases import Leases
from halfbyte.quantize.metadata import write_metadata
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.quantize.pipeline import fingerprint
from halfbyte.quantize.prepare import Prepared, prepare
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.shared_job import read_job, shared_job, with_stored
from halfbyte.quantize.staging import check_free, publish, stage_side_files
from halfbyte.quantize.threads import Run, results_of

PARTS = "parts"
"""Folder of leases, in the staging folder."""
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

    def __init__(self, leases: Leases, folder: Path, sources: dict[str, str]) -> None:
        self.folder, self.sources, self.shards = folder, sources, {}
        self._leases = leases

    def shard_done(self, file: str, sha256: str, size: int, measures: dict[str, Any]) -> None:
        """Move the shard to where all parts put theirs, then say so."""
        self.shards[file] = {"shard": file, "sha256": sha256, "bytes": size, "measures": measures}
        try:
            os.replace(self.folder / file, self.folder.parent / file)
        except OSError as error:
            raise output_error(self.folder / file, error) from None
        self._leases.done(file, self.shards[file])

    def source_done(self, file: str, sha256: str) -> None:
        self.sources[file] = sha256

    def close(self) -> None:
        pass


def quantize_part(
    src: str | Path, dst: str | Path, options: QuantizeOptions, part: PartOptions, progress: Progress | None = None
) -> PartResult:
    """Do one part. Raises HalfbyteError; what was done stays for the others, and for the same part begun again."""
    began, progress, dst = time.monotonic(), progress or Silent(), Path(dst)
    _check(options)
    index, count = part.place
    with Checkpoint.open(src, options.follow_links) as source:
        prepared = prepare(source, dst, options, began)
        if has_journal(dst):
            raise OutputError(
                f"{dst}: holds an unfinished run without parts",
                hint=said("finish it with its own command, or choose another folder"),
            )
        with new_folder(dst):
            check_free(dst, prepared.job.output_bytes)
            shared_job(dst / STAGING, fingerprint(prepared, prepared.known_scales), options)
            with (
                _alone(dst / STAGING / f"part-{index}-of-{count}", f"{dst}: part {index} of {count}"),
                Leases(dst / STAGING / PARTS, f"{index}-of-{count}", part.lease_seconds) as leases,
            ):
                work = _Part(prepared, leases, index, count, progress)
                work.run()
    return PartResult(
        str(dst), index, count, work.shards, work.taken_over, work.left, round(time.monotonic() - began, 3)
    )


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
    began, progress, dst = time.monotonic(), progress or Silent(), Path(dst)
    staging = dst / STAGING
    stored = read_job(staging)
    if stored is None:
        raise OutputError(f"{dst}: holds no parts of a run", hint=said("begin with {part} 0/2 and {part} 1/2"))
    options = with_stored(options, stored)
    _check(options)
    with Checkpoint.open(src, options.follow_links) as source:
        prepared = prepare(source, dst, options, began)
        shared_job(staging, fingerprint(prepared, prepared.known_scales), options)
        with Leases(staging / PARTS, f"finish-{os.getpid()}", 60) as leases:
            journal = _joined(prepared, leases, staging, progress)
            scales, shards = prepared.known_scales, [shard.file for shard in prepared.job.shards]
            files = Run(source, prepared.job, journal, dst, _rounding(options), scales, 1, progress).output_files()
            results = results_of(journal, shards)
            copied = stage_side_files(staging, prepared.side.files)
            names = write_metadata(prepared, journal, copied, files, scales, results, None)
            source.check_unchanged()
            publish(staging, dst, shards, copied, names)
            result = prepared.result(scales, results, 0)
        if on_done is not None:
            on_done(result)
        shutil.rmtree(staging, ignore_errors=True)
    return result


@contextmanager
def _alone(folder: Path, what: str) -> Iterator[None]:
    """The folder of a part, locked against a second process of the same part."""
    try:
        folder.mkdir(exist_ok=True)
        lock = locked(
            folder / "lock", OutputError(f"{what} is at work already", hint="give each process a part of its own")
        )
    except OSError as error:
        raise output_error(folder, error) from None
    try:
        yield
    finally:
        os.close(lock)


class _Part:
    def __init__(self, prepared: Prepared, leases: Leases, index: int, count: int, progress: Progress) -> None:
        self._prepared, self._leases, self._progress = prepared, leases, progress
        self._index, self._count = index, count
        self.shards = self.taken_over = self.left = 0
        self._lock = threading.Lock()
        self._all: dict[str, OutputShard | None] = {shard.file: shard for shard in prepared.job.shards}
        self._all |= {_source_piece(name): None for name in prepared.source.shards}

    def run(self) -> None:
        pieces = list(self._all)
        mine = [piece for number, piece in enumerate(pieces) if number % self._count == self._index]
        total = sum(unit.source_bytes for piece in mine if (shard := self._all[piece]) for unit in shard.units)
        self._progress.start(f"quantize, part {self._index} of {self._count}", total)
        with ThreadPoolExecutor(IN_FLIGHT, "piece") as pool:
            futures = [pool.submit(self._try, piece) for piece in mine]
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
        self.left = sum(1 for piece, shard in self._all.items() if shard and self._leases.record(piece) is None)

    def _open(self, pieces: list[str]) -> list[str]:
        """What is not done, of parts that have begun: those that have not will do theirs when they come."""
        begun = {name.partition("-")[0] for name in self._leases.workers() if name.endswith(f"-of-{self._count}")}
        return [
            piece
            for number, piece in enumerate(pieces)
            if str(number % self._count) in begun and self._leases.record(piece) is None
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
        prepared, folder = self._prepared, self._leases.folder.parent / f"part-{self._index}-of-{self._count}"
        journal = PartJournal(self._leases, folder, dict.fromkeys(prepared.source.shards, ""))
        alone = replace(prepared.job, shards=[shard])
        quiet = _Advancing(self._progress)
        options = prepared.options
        Run(
            prepared.source, alone, journal, folder, _rounding(options), prepared.known_scales, options.threads, quiet
        ).execute()


class _Advancing(Silent):
    """Progress of a shard, added to that of the part."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def advance(self, done_bytes: int) -> None:
        self._progress.advance(done_bytes)

    def note(self, message: str) -> None:
        self._progress.note(message)


_SOURCE = "source-"


def _source_piece(name: str) -> str:
    return _SOURCE + name


def _rounding(options: QuantizeOptions) -> Rounding:
    return "sweep" if options.rounding == "sweep" else "max"


def _check(options: QuantizeOptions) -> None:
    if options.on_data or options.calibrate:
        raise UsageError(
            said("{part} and {calibrate}: each part would run the whole model, layer by layer, for itself"),
            hint=said(
                "measure the scales once with `halfbyte calibrate` and give the file as {input_scale}; round on data "
                "in one process, with {rounding} gptq"
            ),
        )
    if options.dry_run:
        raise UsageError(said("{part} writes; {dry_run} is for the whole"))


def _joined(prepared: Prepared, leases: Leases, staging: Path, progress: Progress) -> Journal:
    """All records as one journal, their files hashed again. Raises OutputError naming what is missing."""
    journal = PartJournal(leases, staging, {})
    wanted = [shard.file for shard in prepared.job.shards]
    missing = [piece for piece in wanted if leases.record(piece) is None]
    unread = [name for name in prepared.source.shards if leases.record(_source_piece(name)) is None]
    if missing or unread:
        what = f"{len(missing)} of {len(wanted)} shard(s) are missing: {_some(missing)}" if missing else ""
        hashes = f"source shard(s) not hashed: {_some(unread)}" if unread else ""
        at_work = [name for name in leases.workers() if "-of-" in name and leases.alive(name)]
        raise OutputError(
            f"{staging.parent}: {'; '.join(filter(None, (what, hashes)))}",
            hint=f"part(s) {', '.join(at_work)} are at work: wait for them"
            if at_work
            else said("run the parts that are missing with {part}, then {finish} again"),
        )
    progress.start("check", prepared.job.output_bytes)
    for shard in prepared.job.shards:
        record = leases.record(shard.file)
        path = next((path for path in (staging / shard.file, staging.parent / shard.file) if path.exists()), None)
        if (
            record is None
            or path is None
            or path.stat().st_size != shard.bytes
            or hash_file(path) != record.get("sha256")
        ):
            leases.undone(shard.file)
            raise OutputError(
                f"{staging / shard.file}: is not what its part wrote",
                hint=said("run any part again: it writes this shard anew; then {finish} again"),
            )
        journal.shards[shard.file] = record
        progress.advance(shard.bytes)
    for name in prepared.source.shards:
        journal.sources[name] = str((leases.record(_source_piece(name)) or {}).get("sha256"))
    return journal


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
