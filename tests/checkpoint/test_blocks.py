"""Blocks: in bounded room, each fetched once, hashed in the order of the file whatever order they are read in."""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from halfbyte.checkpoint import blocks
from halfbyte.checkpoint.blocks import Blocks
from halfbyte.errors import CheckpointError

BLOCK = 100
SIZE = 120 * BLOCK + 7
ROOM = 32
CONTENT = np.random.default_rng(0).bytes(SIZE)


class Server:
    """One file. fails: how often its block of a number does."""

    def __init__(self, stated: str | None = None, fails: dict[int, int] | None = None) -> None:
        self._stated, self._fails = stated, fails or {}
        self.asked: Counter[int] = Counter()
        self.buffers: set[int] = set()
        self._lock = threading.Lock()

    def block_into(self, name: str, start: int, view: memoryview, size: int) -> None:
        number = start // BLOCK
        with self._lock:
            self.asked[number] += 1
            self.buffers.add(np.asarray(view).ctypes.data)
            if self._fails.get(number, 0) >= self.asked[number]:
                raise CheckpointError("the server stumbles")
        view[:] = CONTENT[start : start + len(view)]

    def stated_sha256(self, name: str) -> str | None:
        return self._stated


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(blocks, "ROOM_BYTES", ROOM * BLOCK)
    monkeypatch.setattr(blocks, "READER_BYTES", 5 * BLOCK)


@contextmanager
def opened(server: Server) -> Iterator[Blocks]:
    found = Blocks(server)
    try:
        yield found
    finally:
        found.close()


def read(found: Blocks, start: int, length: int) -> bytes:
    buffer = bytearray(length)
    found.read_into("file", SIZE, memoryview(buffer), start)
    return bytes(buffer)


def twice(found: Blocks, start: int, length: int, step: int = 30) -> None:
    """As a matrix is read, and released."""
    for _ in steps(found, start, length, step):
        pass


def steps(found: Blocks, start: int, length: int, step: int = 30) -> Iterator[None]:
    for _ in range(2):
        for at in range(start, start + length, step):
            count = min(step, start + length - at)
            assert read(found, at, count) == CONTENT[at : at + count]
            yield
    found.release("file", start, start + length)


MATRICES = [(start, min(250, SIZE - start)) for start in range(0, SIZE, 250)]


@pytest.mark.parametrize("stated", [None, "0" * 64])
def test_each_block_is_fetched_once_by_several_readers_of_one_room(stated: str | None) -> None:
    server = Server(stated)
    with opened(server) as found:
        left = [steps(found, *matrix) for matrix in reversed(MATRICES)]
        reading = [left.pop() for _ in range(3)]
        while reading:  # in turn, as threads of one speed would
            for number, reader in enumerate(reading):
                if next(reader, "ended") == "ended":
                    reading[number] = left.pop() if left else iter(())
            reading = reading if left or any(next(reader, "ended") is None for reader in reading) else []
        if stated is None:
            assert found.sha256("file", SIZE, lambda: None) == hashlib.sha256(CONTENT).hexdigest()
    assert set(server.asked.values()) == {1}
    assert len(server.buffers) <= ROOM + 1


def test_threads_that_read_as_they_please_get_the_bytes_of_the_file() -> None:
    server = Server()
    with opened(server) as found, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda matrix: twice(found, *matrix), MATRICES))
        assert found.sha256("file", SIZE, lambda: None) == hashlib.sha256(CONTENT).hexdigest()
    assert set(server.asked) == set(range(121))
    assert len(server.buffers) <= ROOM + 4


def test_what_is_not_released_goes_when_the_room_is_full() -> None:
    server = Server()
    with opened(server) as found:
        assert read(found, 0, SIZE) == read(found, 0, SIZE) == CONTENT
    assert len(server.buffers) <= ROOM + 1
    assert sum(server.asked.values()) <= 2 * 121


def test_who_reads_again_what_was_released_does_not_fetch_it_for_every_piece() -> None:
    server = Server("0" * 64)
    with opened(server) as found:
        twice(found, 0, 1000)
        twice(found, 0, 1000)
    assert max(server.asked.values()) <= 2


def test_nothing_is_fetched_for_its_hash_before_its_reader_comes() -> None:
    """A reader in the middle says nothing of the blocks between it and one that is at the front."""
    server = Server()
    with opened(server) as found:
        twice(found, 0, 100)
        twice(found, 4000, 100)
    assert max(number for number in server.asked if number < 40) <= blocks.AHEAD


def test_blocks_read_in_another_order_are_hashed_all_the_same_and_fetched_twice_at_most() -> None:
    """Two matrices at a time, one of each half: those of the second half come long before their turn."""
    server = Server()
    with opened(server) as found:
        for start in range(0, 6000, 250):
            twice(found, start, 250)
            twice(found, 6000 + start, 250)
        twice(found, 12_000, 7)
        assert found.sha256("file", SIZE, lambda: None) == hashlib.sha256(CONTENT).hexdigest()
        assert found.known_sha256("file", SIZE) == hashlib.sha256(CONTENT).hexdigest()
    assert max(server.asked[number] for number in range(55)) == 1
    assert max(server.asked.values()) <= 2


def test_a_file_of_which_the_second_half_is_read_is_hashed_from_its_front() -> None:
    """As a run that goes on after a kill reads it."""
    server = Server()
    with opened(server) as found:
        for start in range(6000, 12_000, 250):
            twice(found, start, 250)
        assert found.sha256("file", SIZE, lambda: None) == hashlib.sha256(CONTENT).hexdigest()
    assert max(server.asked.values()) <= 2


def test_a_hash_is_not_known_before_all_has_come() -> None:
    with opened(Server()) as found:
        assert found.known_sha256("file", SIZE) is None
        read(found, 0, SIZE - 2 * BLOCK * blocks.AHEAD)
        assert found.known_sha256("file", SIZE) is None


def test_a_failure_is_told_to_its_reader_who_may_ask_again() -> None:
    server = Server(fails={3: 1})
    with opened(server) as found:
        assert read(found, 0, 300) == CONTENT[:300]
        with pytest.raises(CheckpointError, match="stumbles"):
            read(found, 300, 50)
        assert read(found, 300, 50) == CONTENT[300:350]
        assert found.sha256("file", SIZE, lambda: None) == hashlib.sha256(CONTENT).hexdigest()


def test_a_failure_ends_the_hashing() -> None:
    with opened(Server(fails={3: 99})) as found, pytest.raises(CheckpointError, match="stumbles"):
        found.sha256("file", SIZE, lambda: None)


def test_whoever_waits_for_a_block_hears_that_all_is_closed() -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow(Server):
        def block_into(self, name: str, start: int, view: memoryview, size: int) -> None:
            began.set()
            go_on.wait(10)

    found = Blocks(Slow())
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, found, 0, 10)
        began.wait(10)
        found.close()
        assert reading.exception(timeout=10) is not None
        go_on.set()
