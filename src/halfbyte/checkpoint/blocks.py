"""The blocks of files that are not here: fetched ahead of their readers into buffers of a bounded room, used again.

A matrix is read twice (for its largest weight, then to encode it), by several threads, front to back. So blocks are
fetched whole, a few ahead of the one asked for, and stay until their readers say that they are done with them, or until
the room is full: then the one that was not read for longest goes. Where the server states no hash, blocks are hashed as
they come by, in the order of the file. What was read in another order and had to go before its turn is fetched once
more when its turn comes; but nothing is fetched for its hash that a reader is still to come to.
"""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 8 << 20
AHEAD = 8
"""Blocks asked for beyond the one that is read, of one file."""

AT_LEAST_AHEAD = 2
"""The same, for a reader of yet another file while those of others have all the room for what nobody has read yet."""

FETCHERS = 10
ROOM_BYTES = 256 << 20
"""For all blocks, those under way among them. A reader finds its own block a place beyond it, if need be."""

READER_BYTES = 64 << 20
"""Of it for each thread that reads, so that it grows beyond four of them: what one reads twice must stay that long."""

TICK_SECONDS = 0.1

Key = tuple[str, int]
"""The name of a file, the number of a block."""


class Fetches(Protocol):
    """Where blocks come from: `RemoteFiles`, `StoreFiles`."""

    def block_into(self, name: str, start: int, view: memoryview, size: int) -> None: ...

    def stated_sha256(self, name: str) -> str | None: ...


class Block:
    """A part of a file in a buffer. here: done once its bytes are. users: threads that need the buffer now. for_hash:
    nobody else asked for it."""

    def __init__(self, length: int, buffer: npt.NDArray[np.uint8]) -> None:
        self.length, self.buffer = length, buffer
        self.here: Future[None] = Future()
        self.users = 0
        self.unread, self.hashed, self.for_hash = True, False, False

    @property
    def content(self) -> npt.NDArray[np.uint8]:
        return self.buffer[: self.length]

    @property
    def arrived(self) -> bool:
        return self.here.done() and self.here.exception() is None

    @property
    def idle(self) -> bool:
        return not self.users and self.here.done()


class InOrder:
    """SHA-256 of a file so far. next: the block that it waits for. busy: while a thread hashes that one. first: of all
    that were read."""

    def __init__(self) -> None:
        self.digest, self.next, self.busy = hashlib.sha256(), 0, False
        self.first: int | None = None


class Blocks:
    """The blocks of all shards of one checkpoint. Any number of threads may read."""

    def __init__(self, files: Fetches) -> None:
        self._files = files
        self._pool = ThreadPoolExecutor(FETCHERS, "halfbyte-fetch")
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        """The one that was not read for longest first."""
        self._released: Counter[Key] = Counter()
        """Bytes of a block that no reader will ask for again."""
        self._lost: set[Key] = set()
        """Of blocks that had to go before they were hashed."""
        self._free: list[npt.NDArray[np.uint8]] = []
        self._unread = 0
        self._readers: set[int] = set()
        self._orders: dict[str, InOrder] = {}
        self._changed = threading.Condition()

    def read_into(self, name: str, size: int, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start` of a file of `size` bytes."""
        self._readers.add(threading.get_ident())
        target, filled = np.asarray(buffer), 0
        while filled < len(target):
            number, within = divmod(start + filled, BLOCK_BYTES)
            self._note_first(name, number)
            with self._held(name, size, number) as block:
                count = min(block.length - within, len(target) - filled)
                target[filled : filled + count] = block.content[within : within + count]
            filled += count

    def release(self, name: str, start: int, stop: int) -> None:
        """Say that bytes [start, stop) of a file will not be read again."""
        with self._changed:
            for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
                first, key = number * BLOCK_BYTES, (name, number)
                self._released[key] += min(stop, first + BLOCK_BYTES) - max(start, first)
                if block := self._blocks.get(key):
                    self._drop_if_done(key, block)

    def known_sha256(self, name: str, size: int) -> str | None:
        """If all of it has come by."""
        with self._changed:
            order = self._order(name)
            return order.digest.hexdigest() if order.next * BLOCK_BYTES >= size else None

    def sha256(self, name: str, size: int, check_stop: Callable[[], None]) -> str:
        """Of all blocks, those fetched that have not come by yet."""
        while (digest := self.known_sha256(name, size)) is None:
            check_stop()
            with self._changed:
                order = self._order(name)
                if order.busy or order.next * BLOCK_BYTES >= size:
                    self._changed.wait(TICK_SECONDS)
                    continue
                key = name, order.next
                block = self._take(key, size)
            try:
                block.here.result()
                self._hash(name, size)
            finally:
                self._give_back(key, block)
        return digest

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            for block in self._blocks.values():
                with suppress(InvalidStateError):
                    block.here.set_exception(CancelledError())

    @contextmanager
    def _held(self, name: str, size: int, number: int) -> Iterator[Block]:
        """A block whose bytes are here, and stay so for that long. Raises what fetching it raised."""
        key = name, number
        with self._changed:
            while key not in self._blocks and not self._make_room() and self._hash_goes_on():
                self._changed.wait(TICK_SECONDS)  # a reader faster than the hash: what had to go would come again
            if key not in self._blocks:
                self._released.pop(key, None)  # somebody does read it again
            block = self._take(key, size)
        try:
            block.here.result()
            yield block
        finally:
            self._give_back(key, block)

    def _take(self, key: Key, size: int) -> Block:
        """A block that is used from now on, whose bytes may not be here yet; those behind it are asked for too."""
        block = self._blocks.get(key) or self._begin(key, size)
        self._blocks.move_to_end(key)
        self._unread -= block.unread
        block.unread = block.for_hash = False
        block.users += 1
        self._look_ahead(key, size)
        return block

    def _give_back(self, key: Key, block: Block) -> None:
        with self._changed:
            block.users -= 1
            if not block.arrived and self._blocks.get(key) is block:
                del self._blocks[key]  # whoever asks again may have more luck
            self._drop_if_done(key, block)

    def _look_ahead(self, key: Key, size: int) -> None:
        """Ask for the next blocks of a file, as far as there is room for what nobody has read yet; those that are there
        already stay for as long as somebody reads towards them."""
        name, number = key
        last = (size - 1) // BLOCK_BYTES
        for following in range(number + 1, min(number + AHEAD, last) + 1):
            key = name, following
            if key in self._blocks:
                self._blocks.move_to_end(key)
            elif self._released[key] < _length(key, size):
                few = following <= number + AT_LEAST_AHEAD
                if not (few or self._unread < self._room // 2) or not self._make_room():
                    return
                self._begin(key, size)

    @property
    def _room(self) -> int:
        """In blocks."""
        return max(ROOM_BYTES, READER_BYTES * len(self._readers)) // BLOCK_BYTES

    def _make_room(self) -> bool:
        """For one block more. Whether there is any: what is used, under way or just to be hashed does not go, nor does
        anything if what is just to be hashed goes by itself then."""
        while len(self._blocks) >= self._room:
            due = {name: self._hashed_soon(name) for name in {name for name, _ in self._blocks}}
            waiting = {key for key, block in self._blocks.items() if not block.hashed and key[1] < due[key[0]]}
            idle = (key for key, block in self._blocks.items() if block.idle and key not in waiting)
            if any(self._over(key, self._blocks[key]) for key in waiting) or (key := next(idle, None)) is None:
                return False
            if not self._blocks[key].hashed:
                self._lost.add(key)
            self._drop(key)
        return True

    def _hashed_soon(self, name: str) -> int:
        """The first block of a file that cannot be hashed yet."""
        number = self._order(name).next
        while (block := self._blocks.get((name, number))) and block.arrived:
            number += 1
        return number

    def _hash_goes_on(self) -> bool:
        """Whether a block is here that is to be hashed next."""
        due = (self._blocks.get((name, order.next)) for name, order in self._orders.items())
        return any(block is not None and block.arrived and not block.hashed for block in due)

    def _begin(self, key: Key, size: int) -> Block:
        """Ask for a block; its buffer is one that was in use before, if there is one."""
        self._make_room()
        buffer = self._free.pop() if self._free else np.empty(BLOCK_BYTES, np.uint8)
        self._blocks[key] = block = Block(_length(key, size), buffer)
        self._unread += 1
        self._pool.submit(self._fetch, key, block, size)
        return block

    def _drop(self, key: Key) -> None:
        block = self._blocks.pop(key)
        self._unread -= block.unread
        self._free.append(block.buffer)
        self._changed.notify_all()

    def _drop_if_done(self, key: Key, block: Block) -> None:
        if block.idle and block.hashed and self._over(key, block) and self._blocks.get(key) is block:
            self._drop(key)

    def _over(self, key: Key, block: Block) -> bool:
        """For its readers."""
        return block.for_hash or self._released[key] >= block.length

    def _fetch(self, key: Key, block: Block, size: int) -> None:
        name, number = key
        try:
            self._files.block_into(name, number * BLOCK_BYTES, block.content.data, size)
        except BaseException as error:
            with suppress(InvalidStateError):
                block.here.set_exception(error)
            return
        with self._changed:
            block.hashed = self._files.stated_sha256(name) is not None or number < self._order(name).next
            with suppress(InvalidStateError):
                block.here.set_result(None)
            self._drop_if_done(key, block)
        if not block.hashed:
            self._hash(name, size)

    def _hash(self, name: str, size: int) -> None:
        """The blocks that have come, as long as the next one is here; by one thread at a time."""
        while True:
            with self._changed:
                order = self._order(name)
                key = name, order.next
                block = self._blocks.get(key)
                if block is None and order.next * BLOCK_BYTES < size and self._passed(name, order):
                    self._begin(key, size).for_hash = True
                if order.busy or block is None or not block.arrived:
                    return
                order.busy = True
                block.users += 1
            order.digest.update(block.content.data)
            with self._changed:
                order.busy, order.next = False, order.next + 1
                block.users -= 1
                block.hashed = True
                self._drop_if_done(key, block)
                self._changed.notify_all()

    def _passed(self, name: str, order: InOrder) -> bool:
        """Whether no reader will bring the block to be hashed next: it went, or lies before all that is read."""
        return (name, order.next) in self._lost or (order.first is not None and order.next < order.first)

    def _note_first(self, name: str, number: int) -> None:
        with self._changed:
            order = self._order(name)
            order.first = number if order.first is None else min(order.first, number)

    def _order(self, name: str) -> InOrder:
        return self._orders.setdefault(name, InOrder())


def _length(key: Key, size: int) -> int:
    return min(BLOCK_BYTES, size - key[1] * BLOCK_BYTES)
