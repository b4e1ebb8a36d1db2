"""Reads a pass's weights from disk ahead of the computation, in a thread of its own, within a bound of bytes."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.source import Checkpoint

Raw = dict[str, Tensor]
"""Part of an entry -> its bytes as they lie in the file: uint8, one dimension."""

PIECE_BYTES = 8 << 20
"""Read at once by one thread: large enough for a disk, small enough to share a matrix between threads."""


class Buffers:
    """Byte buffers, used again by size: fresh memory costs more page faults than reading from a fast disk.

    Free buffers and those in use stay within `limit_bytes`, save for a single parcel that is larger by itself.
    """

    def __init__(self, limit_bytes: int, pinned: bool) -> None:
        self.limit_bytes, self._pinned = limit_bytes, pinned
        self.used = 0
        self._free: deque[tuple[Tensor, Any]] = deque()
        self._free_bytes = 0

    def take(self, size: int) -> Tensor:
        self.used += size
        for position, (buffer, event) in enumerate(self._free):
            if len(buffer) == size:
                del self._free[position]
                self._free_bytes -= size
                if event is not None:
                    event.synchronize()
                return buffer
        while self._free and self.used + self._free_bytes > self.limit_bytes:
            buffer, event = self._free.popleft()
            self._free_bytes -= len(buffer)
            if event is not None:
                event.synchronize()
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)

    def give_back(self, buffer: Tensor, event: Any) -> None:
        self.used -= len(buffer)
        self._free.append((buffer, event))
        self._free_bytes += len(buffer)


class Reader:
    """Parcels (lists of entries) in a fixed order; `take` gives the next one's bytes, `give_back` frees them."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        parcels: Iterable[Sequence[Entry]],
        ahead_bytes: int,
        *,
        pinned: bool = False,
        threads: int = 2,
    ) -> None:
        """ahead_bytes: bound of what is read and not yet given back. pinned: buffers that a GPU can copy from."""
        self._checkpoint, self._parcels = checkpoint, parcels
        self._buffers = Buffers(ahead_bytes, pinned)
        self._ready: deque[tuple[list[Raw], float]] = deque()
        self._change = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="halfbyte-read")
        self.read_seconds = self.wait_seconds = 0.0  # of the parcels that were taken
        self._thread = threading.Thread(target=self._run, name="halfbyte-reader", daemon=True)
        self._thread.start()

    def take(self) -> list[Raw]:
        """Bytes of the next parcel, one Raw for each entry. Waits for them; raises what reading raised."""
        began = time.perf_counter()
        with self._change:
            while not self._ready and self._error is None:
                self._change.wait()
            self.wait_seconds += time.perf_counter() - began
            if not self._ready:
                assert self._error is not None
                raise self._error
            raws, seconds = self._ready.popleft()
            self.read_seconds += seconds
            return raws

    def give_back(self, raws: Iterable[Raw], event: Any = None) -> None:
        """The bytes are not needed any more; with a CUDA event, once that has happened."""
        with self._change:
            for raw in raws:
                for buffer in raw.values():
                    self._buffers.give_back(buffer, event)
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        try:
            for parcel in self._parcels:
                raws = self._allocate(parcel)
                if raws is None:
                    return
                began = time.perf_counter()
                self._read(parcel, raws)
                with self._change:
                    self._ready.append((raws, time.perf_counter() - began))
                    self._change.notify_all()
        except BaseException as error:
            with self._change:
                self._error = error
                self._change.notify_all()

    def _allocate(self, parcel: Sequence[Entry]) -> list[Raw] | None:
        """Buffers for a parcel, once there is room; None when the reader was closed."""
        size = sum(entry.bytes for entry in parcel)
        with self._change:
            while not self._stopped and self._buffers.used and self._buffers.used + size > self._buffers.limit_bytes:
                self._change.wait()
            if self._stopped:
                return None
            return [
                {part: self._buffers.take(tensor.bytes) for part, tensor in entry.tensors.items()} for entry in parcel
            ]

    def _read(self, parcel: Sequence[Entry], raws: list[Raw]) -> None:
        jobs = []
        for entry, raw in zip(parcel, raws, strict=True):
            for part, tensor in entry.tensors.items():
                view = raw[part].numpy().data
                for start in range(0, len(view), PIECE_BYTES):
                    piece = view[start : start + PIECE_BYTES]
                    jobs.append((tensor, piece, start))
        if sum(entry.bytes for entry in parcel) <= PIECE_BYTES:  # a hand-over would cost more than the read
            for job in jobs:
                self._checkpoint.read_into(*job)
            return
        for done in [self._pool.submit(self._checkpoint.read_into, *job) for job in jobs]:
            done.result()


def read_now(checkpoint: Checkpoint, entry: Entry, device: torch.device) -> Raw:
    """One entry's bytes at once, outside the order."""
    raw = {}
    for part, tensor in entry.tensors.items():
        buffer = torch.empty(tensor.bytes, dtype=torch.uint8)
        checkpoint.read_into(tensor, buffer.numpy().data)
        raw[part] = buffer.to(device)
    return raw
