"""The threads of one run: workers, source hashers, and the finisher of completed shards.

A source on the disk is hashed while its bytes are in the page cache. One that is not here is hashed as its bytes come
by for the workers; what did not come by is fetched at the end, so that no hasher fetches what a worker needs later.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import ShardWriter, hash_file
from halfbyte.evidence.dossier import File
from halfbyte.formats.nvfp4.codec import Measure, Rounding
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.room import OPEN_SHARDS
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.quantize.rows import Stopped
from halfbyte.quantize.staging import staged_files
from halfbyte.quantize.units import Unit
from halfbyte.quantize.work import Worker

Results = dict[str, tuple[float, Measure]]

HASHES_BEHIND = 2
"""Source shards whose hashing may lag behind the workers, so that their bytes are still in the page cache."""


class OpenShard:
    """An output shard that workers are filling."""

    def __init__(self, shard: OutputShard, staging: Path) -> None:
        self.shard = shard
        self.out = ShardWriter(staging / shard.file, shard.header, shard.bytes)
        self.left = len(shard.units)
        self.results: Results = {}


class Run:
    """Executes a job. Every thread stops at the first error, which `execute` raises."""

    def __init__(
        self,
        source: Checkpoint,
        job: Job,
        journal: Journal,
        dst: Path,
        rounding: Rounding,
        input_scales: InputScales | None,
        workers: int,
        progress: Progress,
        rounded: RoundedExperts | None = None,
    ) -> None:
        """rounded: experts that were rounded on data before; everything else is rounded by `rounding`."""
        self._source, self._job, self._journal, self._dst = source, job, journal, dst
        self._rounding, self._input_scales, self._workers, self._progress = rounding, input_scales, workers, progress
        self._rounded = rounded
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._units: queue.Queue[tuple[OpenShard, Unit] | None] = queue.Queue(maxsize=2 * workers)
        self._open: set[OpenShard] = set()
        self._places = threading.Semaphore(OPEN_SHARDS)
        self._finish_later: Callable[[OpenShard], None]
        self.resumed_shards = 0

    def execute(self) -> Results:
        """Do all that the journal does not already have. Returns amax and cost of every quantized linear."""
        todo = self._not_yet_done()
        done_bytes = self._job.source_bytes - sum(unit.source_bytes for shard in todo for unit in shard.units)
        self._progress.start("quantize", self._job.source_bytes, done_bytes)
        hashers = ThreadPoolExecutor(max(1, self._workers // 2), "hash-source")
        finisher = ThreadPoolExecutor(1, "finish-shard")
        workers = ThreadPoolExecutor(self._workers, "quantize")
        futures: list[Future[Any]] = []
        failure: BaseException | None = None
        try:
            self._finish_later = lambda shard: futures.append(finisher.submit(self._finish, shard))
            working = [workers.submit(self._work) for _ in range(self._workers)]
            futures += working
            self._feed(todo, hashers, futures, len(working))
            wait(working)
            self._hash_rest(hashers, futures)
            wait(futures)
        except BaseException as error:  # Ctrl-C too: the threads must end before anything is cleaned up
            failure = error
            self._stop.set()
        for pool in (workers, hashers, finisher):
            pool.shutdown(wait=True, cancel_futures=self._stop.is_set())
        for shard in list(self._open):
            shard.out.abandon()
        errors = [failure, *(future.exception() for future in futures if not future.cancelled())]
        found = [error for error in errors if error is not None]
        if found:  # Stopped only says that another thread had the real one
            raise min(found, key=lambda error: isinstance(error, Stopped))
        self._source.check_unchanged()
        return results_of(self._journal, [shard.file for shard in self._job.shards])

    def output_files(self) -> list[File]:
        """The shards as written, in order."""
        done = self._journal.shards
        return [
            File(file=shard.file, bytes=done[shard.file]["bytes"], sha256=done[shard.file]["sha256"])
            for shard in self._job.shards
        ]

    def _not_yet_done(self) -> list[OutputShard]:
        """Shards still to do; finished ones are believed only after their bytes were hashed again."""
        todo = []
        for shard in self._job.shards:
            noted = self._journal.shards.get(shard.file)
            path = next((path for path in staged_files(self._dst, shard.file) if path.exists()), None)
            if noted and path and path.stat().st_size == shard.bytes and hash_file(path) == noted["sha256"]:
                self.resumed_shards += 1
            else:
                todo.append(shard)
        return todo

    def _feed(
        self,
        todo: list[OutputShard],
        hashers: ThreadPoolExecutor,
        futures: list[Future[Any]],
        workers: int,
    ) -> None:
        """Queue all units in order, and the hashing of each source shard that lies here when work reaches it."""
        hashing: dict[str, Future[Any]] = {}

        def hash_soon(name: str) -> None:
            if self._source.is_remote or name in hashing or name in self._journal.sources:
                return
            if len(hashing) >= HASHES_BEHIND:  # dicts keep order: wait for the one that many shards back
                list(hashing.values())[-HASHES_BEHIND].result()
            hashing[name] = hashers.submit(self._hash_source, name)
            futures.append(hashing[name])

        for opened, unit in self._units_of(todo):
            for tensor in [linear.source for linear in unit.linears] + [tensor for _, tensor in unit.kept]:
                for name in tensor.shards:
                    hash_soon(name)
            self._put((opened, unit))
        for _ in range(workers):
            self._put(None)
        for name in self._source.shards:
            hash_soon(name)

    def _hash_rest(self, hashers: ThreadPoolExecutor, futures: list[Future[Any]]) -> None:
        """Of a source that is not here: what did not come by."""
        if self._source.is_remote and not self._stop.is_set():
            futures += [
                hashers.submit(self._hash_source, name)
                for name in self._source.shards
                if name not in self._journal.sources
            ]

    def _note_hashed(self) -> None:
        """Source shards that have come by as a whole: a run that goes on after a kill need not fetch them again."""
        for name, shard in self._source.shards.items():
            digest = None if name in self._journal.sources else shard.known_sha256
            if digest is not None:
                self._journal.source_done(name, digest)

    def _units_of(self, todo: list[OutputShard]) -> Iterator[tuple[OpenShard, Unit]]:
        """All units in order; a shard's file is opened when its first unit comes up."""
        for shard in todo:
            while self._rounded is not None and not self._places.acquire(timeout=0.2):
                self._check_stop()
            opened = OpenShard(shard, self._journal.folder)
            with self._lock:
                self._open.add(opened)
            for unit in shard.units:
                yield opened, unit

    def _put(self, item: tuple[OpenShard, Unit] | None) -> None:
        while True:
            try:
                self._units.put(item, timeout=0.2)
                return
            except queue.Full:
                self._check_stop()

    def _next(self) -> tuple[OpenShard, Unit] | None:
        while True:
            try:
                return self._units.get(timeout=0.2)
            except queue.Empty:
                self._check_stop()

    def _work(self) -> None:
        worker = Worker(
            self._source, self._rounding, self._input_scales, self._progress.advance, self._check_stop, self._rounded
        )
        try:
            while (item := self._next()) is not None:
                opened, unit = item
                results = worker.run(unit, opened.shard, opened.out)
                with self._lock:
                    opened.results |= results
                    opened.left -= 1
                    finished = opened.left == 0
                if finished:
                    self._finish_later(opened)
        except BaseException:
            self._stop.set()
            raise

    def _finish(self, opened: OpenShard) -> None:
        try:
            digest = opened.out.finish()
            with self._lock:
                self._open.discard(opened)
            self._journal.shard_done(opened.shard.file, digest, opened.shard.bytes, noted_measures(opened.results))
            with self._lock:
                self._note_hashed()
            self._free(opened.shard)
        except BaseException:
            self._stop.set()
            raise
        self._places.release()

    def _free(self, shard: OutputShard) -> None:
        """Rounded experts that are in a finished shard need no second copy."""
        for unit in shard.units if self._rounded is not None else ():
            role = unit.linears[0].role if unit.linears else None
            if role is not None and role.layer is not None and role.expert is not None:
                self._rounded.drop(role.layer, role.expert)  # type: ignore[union-attr]

    def _hash_source(self, name: str) -> None:
        self._check_stop()
        digest = self._source.shards[name].sha256(self._check_stop)
        with self._lock:
            self._journal.source_done(name, digest)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


def noted_measures(results: Results) -> dict[str, list[float]]:
    """A shard's results as its line of the journal holds them."""
    return {
        module: [amax, m.squared_error, m.max_error, m.energy, m.clamped_blocks, m.zero_blocks]
        for module, (amax, m) in sorted(results.items())
    }


def results_of(journal: Journal, files: Iterable[str]) -> Results:
    """What the journal holds about finished shards."""
    results: Results = {}
    for file in files:
        for module, (amax, *sums) in journal.shards[file]["measures"].items():
            results[module] = amax, Measure(*sums)
    return results
