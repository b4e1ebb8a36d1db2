"""From the checkpoint into the output: read, convert, write, on a few threads.

The output is made in steps: runs of consecutive pieces of about 16 MiB, written in one go. Every step knows where its
bytes go, so threads need no order among themselves. Memory is a few buffers per thread, each no larger than a step or
a piece (8 MiB, or one attention head's rows), whatever the size of the checkpoint.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import partial
from halfbyte.errors import CheckpointError
from halfbyte.export.container import Layout
from halfbyte.export.direct import DirectReader, Scratch
from halfbyte.export.mapping import Planned
from halfbyte.export.pieces import Piece
from halfbyte.export.transforms import ScaleError
from halfbyte.export.unfinished import Unfinished
from halfbyte.progress import Progress

Bytes = npt.NDArray[np.uint8]

SYNC_BYTES = 1 << 29
"""Output between two notes in the journal: what a killed run does again at most, besides what is in flight."""


STEP_BYTES = 1 << 24
"""A step ends with the piece that reaches this. Writing piece by piece was up to three times slower (small experts)."""


class Part(NamedTuple):
    """One piece of a step, `start` bytes into it; `piece` is None for a tensor whose values are known already."""

    tensor: Planned
    piece: Piece | None
    start: int
    bytes: int


class Step(NamedTuple):
    """A run of consecutive pieces of one file; the padding between tensors, and behind the last one, belongs to it."""

    file: int
    offset: int
    bytes: int
    parts: list[Part]


def steps(layout: Layout) -> list[Step]:
    """All pieces in the order of the output."""
    result: list[Step] = []
    for tensor, file, offset in layout.tensors:
        for piece in tensor.pieces or (None,):
            size = piece.transform.output_bytes if piece is not None else tensor.bytes
            last = result[-1] if result else None
            if last is None or last.file != file or last.bytes >= STEP_BYTES:
                result.append(Step(file, offset, size, [Part(tensor, piece, 0, size)]))
            else:
                last.parts.append(Part(tensor, piece, offset - last.offset, size))
                result[-1] = last._replace(bytes=offset + size - last.offset)
            offset += size
    ends = [(after.file, after.offset) for after in result[1:]] + [(-1, 0)]
    return [
        step._replace(bytes=(end if file == step.file else layout.sizes[step.file]) - step.offset)
        for step, (file, end) in zip(result, ends, strict=True)
    ]


def sound_steps(todo: Sequence[Step], target: Unfinished, progress: Progress) -> frozenset[int]:
    """Numbers of the steps that an earlier run has written and that still are what it wrote. Reads all of them."""
    noted = {number: total for number, total in target.noted.items() if number < len(todo)}
    if noted:
        progress.start("check the unfinished export", sum(todo[number].bytes for number in noted))
    sound, scratch = set(), Scratch()
    for number, total in sorted(noted.items()):
        step = todo[number]
        data = scratch.take(0, step.bytes, step.offset)
        if target.read(step.file, data.data, step.offset) and crc32(data.data) == total:
            sound.add(number)
        progress.advance(step.bytes)
    damaged = len(noted) - len(sound)
    if damaged:
        progress.note(f"{partial(target.out)}: {damaged} of {len(noted)} finished pieces damaged; they are made again")
    return frozenset(sound)


def read_piece(reader: DirectReader, piece: Piece, scratch: Scratch) -> list[Bytes]:
    """The inputs of a piece's transform. The arrays are overwritten by the thread's next piece."""
    return [reader.read(source, scratch, slot) for slot, source in enumerate(piece.sources)]


def stream(
    checkpoint: Checkpoint,
    todo: list[Step],
    done: frozenset[int],
    target: Unfinished,
    progress: Progress,
    workers: int,
) -> int:
    """Write every step whose number is not in `done`. Returns how many NVFP4 blocks have a zero scale over codes.

    Raises CheckpointError for a block scale that is NaN or negative and for a source that ends early, OutputError if
    the disk refuses. Whatever was noted in the journal stays good.
    """
    scratch, reader, journal = Scratch(), DirectReader(checkpoint), _JournalThread(target)
    silenced = 0

    def convert(step: Step) -> tuple[int, int]:
        output, position, found = scratch.take(-1, step.bytes, step.offset), 0, 0
        for tensor, piece, start, size in step.parts:
            output[position:start] = 0
            position = start + size
            found += _make(reader, tensor, piece, output[start:position], scratch)
        output[position:] = 0
        target.write(step.file, output.data, step.offset)
        return found, crc32(output.data)

    with ThreadPoolExecutor(workers, "export") as pool, journal:
        running: deque[tuple[int, Future[tuple[int, int]]]] = deque()

        def settle() -> int:
            number, future = running.popleft()
            found, total = future.result()
            progress.advance(todo[number].bytes)
            journal.settled(number, total, todo[number].bytes)
            return found

        try:
            for number in range(len(todo)):
                if number not in done:
                    running.append((number, pool.submit(convert, todo[number])))
                while len(running) > 2 * workers:
                    silenced += settle()
            while running:
                silenced += settle()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            reader.close()
    return silenced


def _make(reader: DirectReader, tensor: Planned, piece: Piece | None, output: Bytes, scratch: Scratch) -> int:
    """Fill `output` with one piece. Returns its number of blocks with a zero scale over codes."""
    if piece is None:
        assert tensor.values is not None
        output[:] = tensor.values.view(np.uint8)
        return 0
    inputs = read_piece(reader, piece, scratch)
    try:
        return piece.transform.forward(inputs, output)
    except ScaleError as error:
        raise CheckpointError(
            f"{piece.sources[-1].name}: holds a {error} block scale, which llama.cpp cannot represent",
            hint="the checkpoint is damaged or was quantized wrongly (an all-zero expert gives NaN in ModelOpt)",
        ) from None


class _JournalThread:
    """Syncs and notes progress in the background, so that the steps never wait for the disk's own pace."""

    def __init__(self, target: Unfinished) -> None:
        self._target, self._bytes = target, 0
        self._sums: dict[int, int] = {}
        self._pool = ThreadPoolExecutor(1, "export-journal")
        self._noting: Future[None] | None = None

    def settled(self, number: int, total: int, size: int) -> None:
        """One more step is written. total: CRC-32 of its bytes."""
        self._sums[number] = total
        self._bytes += size
        if self._bytes >= SYNC_BYTES and (self._noting is None or self._noting.done()):
            self._wait()
            reached, sums = self._target.reached, self._sums
            self._bytes, self._sums = 0, {}
            self._noting = self._pool.submit(reached, sums)

    def _wait(self) -> None:
        if self._noting is not None:
            self._noting.result()

    def __enter__(self) -> "_JournalThread":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        self._wait()
