"""The platform's shape on one machine: two doors on one PostgreSQL before three engines; any one dies under load.

A client does what a Service and an SDK do: what had not begun to answer it asks again, at the other door.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve.doors import RunningDoor, add_tenant, door, show, usage
from serve.postgres import binaries, postgres

pytest.importorskip("xllamacpp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL is installed"),
]

TINY = str(Path(__file__).parents[2] / "examples" / "tiny-glm")
CHAT = "/v1/chat/completions"
ASK = {"model": "tiny-glm", "messages": [{"role": "user", "content": "Compute 3+4."}], "max_tokens": 120}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CLIENTS = 6
REQUESTS, KILL_AFTER = 24, 6
PATIENCE = 120.0


@dataclass
class Seen:
    """What the clients saw. done: (prompt, output) tokens of whole answers. cut: answers that had begun and broke off.

    lost: requests that nobody answered. again: those that were asked at another door.
    """

    done: list[tuple[int, int]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    again: int = 0


@dataclass(frozen=True)
class Platform:
    ledger: str
    doors: list[RunningDoor]
    engines: list[RunningDoor]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with ExitStack() as stack:
        ledger = stack.enter_context(postgres())
        engines = []
        for number in range(3):
            options = ("--max-running-requests", "4", "--context-length", "1024")
            environment = {"HALFBYTE_STATE": str(tmp_path / "none"), "HALFBYTE_CACHE": str(tmp_path / "cache")}
            log = tmp_path / f"engine{number}.log"
            engines.append(stack.enter_context(door(TINY, *options, log=log, ready_s=90, **environment)))
        add_tenant(ledger, "unused")
        words = ("--upstream", ",".join(one.url for one in engines), "--state", ledger)
        doors = [
            stack.enter_context(door("tiny-glm", *words, log=tmp_path / f"door{number}.log", ready_s=60))
            for number in range(2)
        ]
        yield Platform(ledger, doors, engines)


def ask(platform: Platform, key: str, number: int, seen: Seen) -> None:
    """One request, streamed or not, at one door and then at the other, while it has not begun to answer."""
    order = itertools.islice(itertools.cycle(platform.doors), number % 2, None)
    until = time.monotonic() + PATIENCE
    for one in order:
        began: list[str] = []
        try:
            tokens = (_streamed if number % 3 else _whole)(one, key, began)
        except httpx.TransportError as error:
            if began:
                seen.cut.append(str(error))
                return
            tokens = None
        if tokens is not None:
            seen.done.append(tokens)
            return
        if began:
            seen.cut.append(began[-1])
            return
        if time.monotonic() > until:
            seen.lost.append(f"request {number}")
            return
        seen.again += 1
        time.sleep(0.05)


def _whole(one: RunningDoor, key: str, began: list[str]) -> tuple[int, int] | None:
    with one.client(key) as client:
        answer = client.post(CHAT, json=ASK, timeout=PATIENCE)
    return _counted(answer.json()["usage"]) if answer.status_code == 200 else None


def _streamed(one: RunningDoor, key: str, began: list[str]) -> tuple[int, int] | None:
    """began: the lines that came. None if the answer is no whole one."""
    found = None
    with (
        one.client(key) as client,
        client.stream("POST", CHAT, json=ASK | STREAM, timeout=PATIENCE) as answer,
    ):
        if answer.status_code != 200:
            return None
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            began.append(line)
            if line == "data: [DONE]":
                return found
            figures = json.loads(line[6:]).get("usage")
            found = _counted(figures) if figures else found
    return None


def _counted(figures: dict[str, Any]) -> tuple[int, int]:
    return figures["prompt_tokens"], figures["completion_tokens"]


def load(platform: Platform, key: str, victim: RunningDoor) -> Seen:
    """Clients ask, all at once and again; after some answers, with all clients waiting for theirs, the victim dies."""
    seen, numbers = Seen(), itertools.count()

    def client() -> None:
        while (number := next(numbers)) < REQUESTS:
            ask(platform, key, number, seen)

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client) for _ in range(CLIENTS)]
        until = time.monotonic() + PATIENCE
        while len(seen.done) < KILL_AFTER:
            assert time.monotonic() < until
            time.sleep(0.01)
        victim.kill()
        for one in running:
            one.result(PATIENCE)
    return seen


def settled(platform: Platform, tenant: str) -> list[dict[str, Any]]:
    """The ledger's rows of a tenant, once nothing is reserved."""
    until = time.monotonic() + PATIENCE
    while show(platform.ledger, tenant)["reserved"]["requests"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    rows = usage(platform.ledger, "--by", "request")["rows"]
    return [row for row in rows if row["tenant"] == tenant]


def charged(rows: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    """Tokens of whole answers."""
    whole = [row for row in rows if row["status"] == "completed"]
    return Counter((row["prompt_tokens"], row["output_tokens"]) for row in whole)


def test_whatever_dies_nothing_that_had_not_begun_is_lost(platform: Platform) -> None:
    an_engine_dies(platform)
    a_door_dies(platform)
    a_door_drains(platform)


def an_engine_dies(platform: Platform) -> None:
    """The door asks another engine: a client never does, and sees nothing but streams that broke off."""
    seen = load(platform, add_tenant(platform.ledger, "engine"), platform.engines[1])
    assert seen.lost == []
    assert seen.again == 0
    assert len(seen.done) + len(seen.cut) == REQUESTS
    assert all("error" in line for line in seen.cut)
    rows = settled(platform, "engine")
    assert charged(rows) == Counter(seen.done)
    agrees(platform, "engine", rows)


def a_door_dies(platform: Platform) -> None:
    """The other door answers, and settles what the dead one had open."""
    seen = load(platform, add_tenant(platform.ledger, "door"), platform.doors[0])
    assert seen.lost == []
    assert len(seen.done) + len(seen.cut) == REQUESTS
    rows = settled(platform, "door")
    assert Counter(seen.done) <= charged(rows)
    unseen = len(rows) - len(seen.done)  # of the dead door: it settles before a client sees the end
    assert unseen <= CLIENTS
    assert {row["status"] for row in rows} <= {"completed", "interrupted"}
    agrees(platform, "door", rows)


def a_door_drains(platform: Platform) -> None:
    """SIGTERM while answers are on their way: each comes whole, and the door ends by itself."""
    key = add_tenant(platform.ledger, "drain")
    last = platform.doors[1]
    began: list[list[str]] = [[] for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        streams = [pool.submit(_streamed, last, key, lines) for lines in began]
        until = time.monotonic() + PATIENCE
        while not all(began):
            assert time.monotonic() < until
            time.sleep(0.001)
        last.process.terminate()
        tokens = [one.result(PATIENCE) for one in streams]
    assert last.process.wait(PATIENCE) == 0
    assert None not in tokens
    rows = settled(platform, "drain")
    assert charged(rows) == Counter(tokens)
    agrees(platform, "drain", rows)


def agrees(platform: Platform, tenant: str, rows: list[dict[str, Any]]) -> None:
    """The limits' account is the sum of the ledger."""
    used = show(platform.ledger, tenant)["used"]["day"]["tokens"]
    assert used == sum(row["prompt_tokens"] + row["output_tokens"] for row in rows)
