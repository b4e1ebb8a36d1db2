"""Piece by piece from the checkpoint into the output: read, convert, write, on a few threads.

Every piece knows where its bytes go, so threads need no order among themselves. Memory is two buffers per thread, each
as large as the largest piece (8 MiB, or one attention head's rows), whatever the size of the checkpoint.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError
from halfbyte.export.container import Layout
from halfbyte.export.mapping import Planned
from halfbyte.export.pieces import Piece
from halfbyte.export.transforms import ScaleError
from halfbyte.export.unfinished import BLOCK_BYTES, Unfinished
from halfbyte.progress import Progress

Bytes = npt.NDArray[np.uint8]

SYNC_BYTES = 1 << 29
"""Output between two notes in the journal: what a killed run does again at most, besides what is in flight."""


class Step(NamedTuple):
    """One piece and its place; `piece` is None for a tensor whose values are known already."""

    tensor: Planned
    piece: Piece | None
    file: int
    offset: int
    bytes: int


def steps(layout: Layout) -> list[Step]:
    """All pieces in the order of the output."""
    result = []
    for tensor, file, offset in layout.tensors:
        if tensor.values is not None:
            result.append(Step(tensor, None, file, offset, tensor.bytes))
        for piece in tensor.pieces:
            size = piece.transform.output_bytes
            result.append(Step(tensor, piece, file, offset, size))
            offset += size
    return result


class Scratch(threading.local):
    """A thread's own buffers, kept from piece to piece."""

    def __init__(self) -> None:
        self._buffers: dict[int, Bytes] = {}

    def take(self, slot: int, size: int, offset: int = 0) -> Bytes:
        """A buffer whose address has the remainder of the file's `offset` within a block, as direct writing wants."""
        buffer = self._buffers.get(slot)
        if buffer is None or len(buffer) < size + BLOCK_BYTES:
            buffer = self._buffers[slot] = np.empty(size + BLOCK_BYTES, np.uint8)
        start = (offset - buffer.ctypes.data) % BLOCK_BYTES
        return buffer[start : start + size]


def read_piece(checkpoint: Checkpoint, piece: Piece, scratch: Scratch) -> list[Bytes]:
    """The inputs of a piece's transform. The arrays are overwritten by the thread's next piece."""
    inputs = []
    for slot, source in enumerate(piece.sources):
        data = scratch.take(slot, source.bytes)
        checkpoint.read_into(source, data.data)
        inputs.append(data)
    return inputs


def stream(checkpoint: Checkpoint, todo: list[Step], target: Unfinished, progress: Progress, workers: int) -> int:
    """Write every step from number `target.done` on. Returns how many NVFP4 blocks have a zero scale over codes.

    Raises CheckpointError for a block scale that is NaN or negative and for a source that ends early, OutputError if
    the disk refuses. Whatever was noted in the journal stays good.
    """
    scratch, journal = Scratch(), _JournalThread(target)
    silenced = 0

    def convert(step: Step) -> int:
        if step.piece is None:
            assert step.tensor.values is not None
            target.write(step.file, step.tensor.values.view(np.uint8).data, step.offset)
            return 0
        inputs, output = read_piece(checkpoint, step.piece, scratch), scratch.take(-1, step.bytes, step.offset)
        try:
            found = step.piece.transform.forward(inputs, output)
        except ScaleError as error:
            raise CheckpointError(
                f"{step.piece.sources[-1].name}: holds a {error} block scale, which llama.cpp cannot represent",
                hint="the checkpoint is damaged or was quantized wrongly (an all-zero expert gives NaN in ModelOpt)",
            ) from None
        target.write(step.file, output.data, step.offset)
        return found

    with ThreadPoolExecutor(workers, "export") as pool, journal:
        running: deque[tuple[Step, Future[int]]] = deque()
        try:
            for number in range(target.done, len(todo) + workers):
                if number < len(todo):
                    running.append((todo[number], pool.submit(convert, todo[number])))
                while running and (len(running) > 2 * workers or number >= len(todo)):
                    step, future = running.popleft()
                    silenced += future.result()
                    progress.advance(step.bytes)
                    journal.settled(step.bytes)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return silenced


class _JournalThread:
    """Syncs and notes progress in the background, so that the pieces never wait for the disk's own pace."""

    def __init__(self, target: Unfinished) -> None:
        self._target, self._pieces, self._bytes = target, target.done, 0
        self._pool = ThreadPoolExecutor(1, "export-journal")
        self._noting: Future[None] | None = None

    def settled(self, size: int) -> None:
        """One more piece, in order, is written."""
        self._pieces += 1
        self._bytes += size
        if self._bytes >= SYNC_BYTES and (self._noting is None or self._noting.done()):
            self._wait()
            self._bytes = 0
            reached: Callable[[int], None] = self._target.reached
            self._noting = self._pool.submit(reached, self._pieces)

    def _wait(self) -> None:
        if self._noting is not None:
            self._noting.result()

    def __enter__(self) -> "_JournalThread":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        self._wait()
