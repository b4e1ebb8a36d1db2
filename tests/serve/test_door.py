"""The door over real sockets, before fake engines: what passes, what is charged, what is refused."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.doors import MODEL, RunningDoor, add_tenant, door, halfbyte, show, usage
from serve.fakes import Fake, chunk, fake_upstream, usage_chunk

PRICES = {"usd_per_million_tokens": {MODEL: {"prompt": 1, "cached": 0.1, "output": 4, "reasoning": 5}}}
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


class Place:
    """One door with its state and its engine, for the tests of this file."""

    def __init__(self, state: Path, fake: Fake, running: RunningDoor) -> None:
        self.state, self.fake, self.door = state, fake, running
        self._names = iter(range(1000))

    def tenant(self, *options: str) -> tuple[str, httpx.Client]:
        name = f"t{next(self._names)}"
        return name, self.door.client(add_tenant(self.state, name, *options))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("door")
    state = folder / "state"
    add_tenant(state, "first")
    (folder / "price.json").write_text(json.dumps(PRICES))
    options = ("--state", str(state), "--price", str(folder / "price.json"), "--max-running-requests", "16")
    with fake_upstream() as fake, door(MODEL, "--upstream", f"{fake.url}/v1", *options, log=folder / "log") as running:
        yield Place(state, fake, running)


def at_rest(state: Path, name: str) -> dict[str, Any]:
    """What `show` says once nothing is reserved any more."""
    until = time.monotonic() + 5
    while True:
        shown = show(state, name)
        if shown["reserved"]["requests"] == 0 or time.monotonic() > until:
            assert shown["reserved"] == {"requests": 0, "tokens": 0, "usd": 0.0}
            return shown


def rows(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.get("/v1/usage", params={"by": "request"}).json()["rows"])


def test_a_stream_passes_byte_for_byte_and_is_charged(place: Place) -> None:
    name, client = place.tenant()
    odd = [
        ": hello\n\n",
        'data:{"choices" : [ {"delta":{"content":"\\u00e9\\n"},"x":1e5}] , "model":"other"}\n\n',
        chunk({"content": "é"}),
        usage_chunk(
            1000, 200, prompt_tokens_details={"cached_tokens": 400}, completion_tokens_details={"reasoning_tokens": 50}
        ),
        "data: [DONE]\n\n",
    ]
    ask = {**ASK, "stream": True, "fake": {"events": odd}}
    answer = client.post(CHAT, json=ask | {"stream_options": {"include_usage": True}})
    assert answer.content == "".join(odd).encode()
    hidden = client.post(CHAT, json=ask)
    assert hidden.content == "".join([*odd[:3], odd[4]]).encode()
    assert json.loads(place.fake.bodies[-1])["stream_options"] == {"include_usage": True}
    assert answer.headers["x-request-id"] != hidden.headers["x-request-id"]
    each = (600 * 1 + 400 * 0.1 + 150 * 4 + 50 * 5) / 1e6
    (row,) = usage(place.state, "--by", "tenant,model,day")["rows"][-1:]
    own = [r for r in usage(place.state)["rows"] if r["tenant"] == name]
    assert own == [
        {
            "tenant": name,
            "model": MODEL,
            "day": row["day"],
            "requests": 2,
            "prompt_tokens": 2000,
            "cached_tokens": 800,
            "output_tokens": 400,
            "reasoning_tokens": 100,
            "usd": pytest.approx(2 * each, abs=1e-12),
        }
    ]
    assert [r["request"] for r in rows(client)] == [answer.headers["x-request-id"], hidden.headers["x-request-id"]]
    assert at_rest(place.state, name)["used"]["day"]["tokens"] == 2400


def test_an_answer_in_one_piece(place: Place) -> None:
    _, client = place.tenant()
    body = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    answer = client.post(CHAT, json={**ASK, "fake": {"answer": body}, "unknown": {"a": [1.5]}})
    assert answer.json()["usage"] == body["usage"]
    assert place.fake.seen[-1]["unknown"] == {"a": [1.5]}
    (row,) = rows(client)
    assert (row["prompt_tokens"], row["output_tokens"], row["status"]) == (9, 3, "completed")


@pytest.mark.parametrize(
    "fake", [{"status": 400}, {"status": 404}, {"status": 429}, {"status": 500}, {"die_first": True}]
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_fails_costs_nothing(place: Place, fake: dict[str, Any], stream: bool) -> None:
    _, client = place.tenant()
    answer = client.post(CHAT, json={**ASK, "stream": stream, "fake": fake})
    assert answer.status_code == fake.get("status", 502)
    assert "message" in answer.json()["error"]
    (row,) = rows(client)
    assert (row["prompt_tokens"], row["output_tokens"], row["usd"]) == (0, 0, 0)


def test_a_cut_stream_ends_with_an_error_and_costs_what_was_delivered(place: Place) -> None:
    _, client = place.tenant()
    answer = client.post(CHAT, json={**ASK, "stream": True, "fake": {"die_last": True, "words": 9}})
    last = answer.text.strip().split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["error"]["code"] == "upstream_cut"
    (row,) = rows(client)
    assert (row["output_tokens"], row["status"]) == (9, "cut")


def test_a_client_that_leaves_frees_the_upstream_and_pays_for_what_it_got(place: Place) -> None:
    name, client = place.tenant()
    left = place.fake.left
    with client.stream("POST", CHAT, json={**ASK, "stream": True, "fake": {"words": 10_000, "pace": 0.01}}) as answer:
        got = 0
        for line in answer.iter_lines():
            got += '"content": "w' in line
            if got == 20:
                break
    began = time.monotonic()
    while place.fake.left == left:
        assert time.monotonic() - began < 2
        time.sleep(0.005)
    assert time.monotonic() - began < 0.5  # 0.2 s on a quiet machine
    assert at_rest(place.state, name)["used"]["day"]["requests"] == 1
    (row,) = rows(client)
    assert 20 <= row["output_tokens"] <= 24
    assert row["status"] == "cancelled"


def test_keys(place: Place) -> None:
    name, client = place.tenant("--models", MODEL)
    assert client.get("/v1/models").json()["data"][0]["id"] == MODEL
    for wrong in (None, "x", "hb-00000000-" + "a" * 43, "k" * 5000):
        answer = place.door.client(wrong).post(CHAT, json=ASK)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "x-request-id" in answer.headers
    key = client.headers["authorization"].partition(" ")[2]
    with httpx.Client(base_url=place.door.url, headers={"x-api-key": key}) as anthropic:
        assert anthropic.post("/v1/messages", json=ASK | {"max_tokens": 3}).status_code == 200
    fresh = json.loads(halfbyte("tenants", "rotate", name, "--state", str(place.state), "--json"))["key"]
    time.sleep(1)
    assert client.get("/v1/models").status_code == place.door.client(fresh).get("/v1/models").status_code == 200
    halfbyte("tenants", "rotate", name, "--state", str(place.state))
    time.sleep(1)
    assert (client.get("/v1/models").status_code, place.door.client(fresh).get("/v1/models").status_code) == (401, 200)
    halfbyte("tenants", "revoke", name, "--state", str(place.state))
    time.sleep(1)
    assert place.door.client(fresh).get("/v1/models").status_code == 401
    assert key.split("-", 2)[2] not in place.door.log.read_text()
    _, expired = place.tenant("--expires", "2020-01-01")
    assert expired.get("/v1/models").status_code == 401


def test_models(place: Place) -> None:
    _, client = place.tenant("--models", "another")
    assert client.post(CHAT, json=ASK).status_code == 403
    unknown = client.post(CHAT, json=ASK | {"model": "nope"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert client.get("/v1/models").json()["data"] == []


NONSENSE: tuple[Any, ...] = (0, -1, 1.5, "3", 10**30, True, [], {}, 1e300)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n"])
def test_nonsense_in_limits(place: Place, field: str) -> None:
    _, client = place.tenant()
    for value in NONSENSE:
        answer = client.post(CHAT, json=ASK | {field: value})
        assert answer.status_code == 400, value
        assert answer.json()["error"]["param"] == field
    for body in (b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b'{"max_tokens": 1' + b"0" * 5000 + b"}", b"[" * 100_000):
        assert client.post(CHAT, content=body).status_code == 400
    assert rows(client) == []


def test_limits_and_their_headers(place: Place) -> None:
    name, client = place.tenant("--requests-per-minute", "3", "--tokens-per-day", "1000")
    body = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    for number in range(3):
        answer = client.post(CHAT, json=ASK | {"max_tokens": 50, "fake": {"answer": body}})
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(2 - number)
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    refused = client.post(CHAT, json=ASK)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-remaining-tokens"] == str(1000 - 45)
    assert at_rest(place.state, name)["used"]["day"]["tokens"] == 45
    _, poor = place.tenant("--usd-per-day", "0.0001")
    assert poor.post(CHAT, json=ASK | {"max_tokens": 10**6}).status_code == 429
    assert poor.post(CHAT, json=ASK | {"fake": {"answer": body}}).status_code == 200
    assert place.fake.seen[-1]["max_tokens"] <= 25  # what 0.0001 dollars buy


@pytest.mark.slow
def test_a_thousand_streams_at_once(place: Place) -> None:
    """None lost, and the ledger equal to what clients received."""
    import asyncio

    import aiohttp

    name, client = place.tenant("--tokens-per-day", "100000000")
    body = ASK | {"stream": True, "max_tokens": 40, "fake": {"words": 30, "pace": 0.05}}

    async def run() -> list[tuple[int, bool]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=dict(client.headers)) as session:

            async def one() -> tuple[int, bool]:
                async with session.post(f"{place.door.url}{CHAT}", json=body) as answer:
                    text = await answer.text()
                    return text.count('"content": "w'), text.endswith("[DONE]\n\n")

            return await asyncio.gather(*(one() for _ in range(1000)))

    assert set(asyncio.run(run())) == {(30, True)}
    assert at_rest(place.state, name)["used"]["day"] == {
        "requests": 1000,
        "tokens": 37_000,
        "usd": pytest.approx(0.127),
    }


@pytest.mark.slow
def test_soak(tmp_path: Path) -> None:
    """Mixed requests (HALFBYTE_SOAK_S, 120), one stream that lasts: memory flat, the ledger equal to what came."""
    import os
    import random

    seconds, state = float(os.environ.get("HALFBYTE_SOAK_S", "120")), tmp_path / "state"
    key = add_tenant(state, "a", "--tokens-per-day", "100000000000")
    received: list[int] = []
    memory: list[int] = []
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "l") as running,
    ):
        until = time.monotonic() + seconds

        def work(number: int) -> None:
            chance = random.Random(number)
            with running.client(key) as client:
                while time.monotonic() < until:
                    kind, words = chance.random(), chance.randrange(1, 200)
                    fakes: dict[str, Any] = {"words": words, "prompt": 7}
                    if kind < 0.1:
                        fakes = {"status": 500}
                    elif kind < 0.2:
                        fakes["usage"] = False
                    answer = client.post(CHAT, json=ASK | {"stream": kind < 0.9, "max_tokens": 300, "fake": fakes})
                    received.append(answer.text.count('"content": "w'))
                    time.sleep(chance.random() * 0.1)

        def last() -> None:
            fakes = {"words": int(seconds), "pace": 1}
            ask = ASK | {"stream": True, "max_tokens": 100_000, "fake": fakes}
            with running.client(key) as client, client.stream("POST", CHAT, json=ask, timeout=60) as answer:
                words = sum('"content": "w' in line for line in answer.iter_lines())
            assert words == seconds
            received.append(words)

        def watch() -> None:
            statm = Path(f"/proc/{running.process.pid}/statm")
            while time.monotonic() < until - 1:
                time.sleep(seconds / 40)
                memory.append(int(statm.read_text().split()[1]))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        threads += [threading.Thread(target=watch), threading.Thread(target=last)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        at_rest(state, "a")
    streamed = [row for row in usage(state, "--by", "request")["rows"] if row["output_tokens"]]
    assert sum(row["output_tokens"] for row in streamed) == sum(received)
    settled = memory[len(memory) // 4 :]
    assert max(settled) <= 1.05 * settled[0]


@pytest.mark.parametrize("limit", ["--tokens-per-day", "--output-tokens-per-minute", "--concurrency"])
def test_no_limit_is_exceeded_by_many_at_once(place: Place, limit: str) -> None:
    name, client = place.tenant(limit, "3" if limit == "--concurrency" else "400")
    answer = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 40}}
    ask = ASK | {"max_tokens": 20, "n": 2, "fake": {"answer": answer, "before": 0.2}}
    with ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(lambda _: client.post(CHAT, json=ask).status_code, range(24)))
    assert set(statuses) == {200, 429}
    used = at_rest(place.state, name)["used"]["day"]
    assert statuses.count(200) == used["requests"]
    if limit == "--tokens-per-day":
        assert used["tokens"] <= 400
    elif limit == "--output-tokens-per-minute":
        assert statuses.count(200) == 10
    else:
        assert 3 <= statuses.count(200) <= 9


def test_tenants_see_only_themselves(place: Place) -> None:
    one, client = place.tenant()
    two, other = place.tenant()
    client.post(CHAT, json=ASK, headers={"x-tenant-id": two, "x-halfbyte-tenant": two, "x-request-id": "mine"})
    assert not {"x-tenant-id", "authorization"} & {name.lower() for name in place.fake.headers[-1]}
    found = other.get("/v1/usage", params={"by": "tenant", "tenant": one})
    assert found.json()["rows"] == []
    (row,) = client.get("/v1/usage", params={"by": "request", "tenant": two}).json()["rows"]
    assert (row["tenant"], row["request"] == "mine") == (one, False)
    assert client.get("/v1/usage", params={"by": "secret"}).status_code == 400


def test_large_bodies(place: Place) -> None:
    _, client = place.tenant()
    big = ASK | {"messages": [{"role": "user", "content": "x" * 10_000_000}]}
    assert client.post(CHAT, json=big).status_code == 200
    assert client.post(CHAT, content=b'"' + b"x" * (33 << 20)).status_code == 413


def test_a_door_behind_a_door_keeps_the_figures(place: Place, tmp_path: Path) -> None:
    name, client = place.tenant()
    key = client.headers["authorization"].partition(" ")[2]
    outer = add_tenant(tmp_path / "outer", "outer")
    options = ("--state", str(tmp_path / "outer"), "--upstream-key-env", "INNER_KEY")
    with door(MODEL, "--upstream", place.door.url, *options, log=tmp_path / "log", INNER_KEY=key) as second:
        for fake in ({"words": 5}, {"words": 6, "usage": False}, {"words": 4, "die_last": True}):
            second.client(outer).post(CHAT, json=ASK | {"stream": True, "fake": fake})
    inner, outer_totals = rows(client), usage(tmp_path / "outer", "--by", "request")["rows"]
    kinds = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    assert [[row[kind] for kind in kinds] for row in inner] == [[row[kind] for kind in kinds] for row in outer_totals]
    assert at_rest(place.state, name)["used"]["day"]["requests"] == 3


def test_what_is_not_sound_keeps_the_door_shut(tmp_path: Path) -> None:
    ask = ("serve", MODEL, "--upstream", "http://127.0.0.1:9", "--port", "0")
    assert "no ledger" in halfbyte(*ask, "--state", str(tmp_path / "missing"), code=1)
    (tmp_path / "empty").mkdir()
    assert "no ledger" in halfbyte(*ask, "--state", str(tmp_path / "empty"), code=1)
    add_tenant(tmp_path / "s", "a", "--usd-per-day", "3")
    assert "dollars" in halfbyte(*ask, "--state", str(tmp_path / "s"), code=1)
    prices = tmp_path / "price.json"
    prices.write_text(json.dumps({"usd_per_million_tokens": {"another": PRICES["usd_per_million_tokens"][MODEL]}}))
    assert "no price" in halfbyte(*ask, "--state", str(tmp_path / "s"), "--price", str(prices), code=1)
    file = tmp_path / "s" / "ledger.sqlite"
    file.write_bytes(b"")
    assert "error" in halfbyte(*ask, "--state", str(tmp_path / "s"), code=1)
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert "error" in halfbyte(*ask, "--state", str(tmp_path / "s"), code=1)
    assert "without keys" in halfbyte(*ask, "--host", "0.0.0.0", code=1, HALFBYTE_STATE=str(tmp_path / "own"))


def test_a_killed_door_is_settled_by_the_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    client_key = add_tenant(state, "a")
    with fake_upstream() as fake:
        options = ("--upstream", fake.url, "--state", str(state))
        with door(MODEL, *options, log=tmp_path / "log") as first:
            client = first.client(client_key)
            body = ASK | {"stream": True, "max_tokens": 3000, "fake": {"words": 3000, "pace": 0.001}}
            with client.stream("POST", CHAT, json=body) as answer:
                got = 0
                for line in answer.iter_lines():
                    got += '"content": "w' in line
                    if got == 600:
                        first.kill()
                        break
            held = show(state, "a")["reserved"]
            assert held["requests"] == 1
            assert held["tokens"] >= 3000
        with door(MODEL, *options, log=tmp_path / "log"):
            shown = show(state, "a")
            assert shown["reserved"]["requests"] == 0
            (row,) = usage(state, "--by", "request")["rows"]
            assert row["status"] == "interrupted"
            assert 512 <= row["output_tokens"] <= 700
            assert shown["used"]["day"]["tokens"] == row["prompt_tokens"] + row["output_tokens"]


def test_upstreams_share_the_work_and_stand_in_for_each_other(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "a")
    with fake_upstream() as one, fake_upstream() as two:
        urls = f"{one.url},{two.url}/v1/,http://127.0.0.1:9"
        with door(MODEL, "--upstream", urls, "--state", str(state), log=tmp_path / "log") as running:
            client = running.client(key)
            ask = ASK | {"max_tokens": 10, "fake": {"before": 0.05}}
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(lambda _: client.post(CHAT, json=ask).status_code, range(40))) == {200}
            assert min(len(one.seen), len(two.seen)) >= 12
            one.healthy = False
            time.sleep(1.2)
            before = len(one.seen)
            assert {client.post(CHAT, json=ASK).status_code for _ in range(5)} == {200}
            assert len(one.seen) == before
            assert client.get("/ready").status_code == 200
            two.healthy = False
            time.sleep(1.2)
            refused = client.post(CHAT, json=ASK)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert client.get("/ready").status_code == 503
            one.healthy = two.healthy = True
            time.sleep(1.2)
            for upstream in (one, two):
                upstream.seen.clear()
            # whichever is asked first dies; the other one answers
            answer = client.post(CHAT, json=ASK | {"stream": True, "fake": {"words": 2}})
            assert answer.status_code == 200


def test_drain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "a")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "l") as running,
    ):
        client = running.client(key)
        words: list[str] = []

        def ask() -> None:
            with client.stream(
                "POST", CHAT, json=ASK | {"stream": True, "fake": {"words": 40, "pace": 0.03}}
            ) as answer:
                words.extend(answer.iter_lines())

        thread = threading.Thread(target=ask)
        thread.start()
        while not words:
            time.sleep(0.01)
        running.process.terminate()
        time.sleep(0.2)
        refused = client.post(CHAT, json=ASK)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert client.get("/ready").status_code == 503
        thread.join()
        assert words[-2] == "data: [DONE]"
        assert running.process.wait(10) == 0
    (row,) = usage(state, "--by", "request")["rows"]
    assert (row["output_tokens"], row["status"]) == (40, "completed")


def test_drain_has_an_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "a")
    options = ("--state", str(state), "--drain-timeout", "0.3")
    with fake_upstream() as fake, door(MODEL, "--upstream", fake.url, *options, log=tmp_path / "log") as running:
        body = ASK | {"stream": True, "fake": {"words": 10_000, "pace": 0.01}}
        with running.client(key).stream("POST", CHAT, json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.terminate()
            rest = "\n".join(lines)
        assert "event: error" in rest
        assert running.process.wait(10) == 0
    (row,) = usage(state, "--by", "request")["rows"]
    assert row["output_tokens"] == rest.count('"content": "w')
    assert row["status"] == "cut"


def test_short_requests_are_not_starved_by_long_ones(tmp_path: Path) -> None:
    state = tmp_path / "state"
    greedy, modest = add_tenant(state, "greedy"), add_tenant(state, "modest")
    options = ("--state", str(state), "--max-running-requests", "2")
    with fake_upstream() as fake, door(MODEL, "--upstream", fake.url, *options, log=tmp_path / "log") as running:
        long = ASK | {"max_tokens": 1_000_000, "fake": {"before": 0.1}}
        short = ASK | {"max_tokens": 10, "fake": {"before": 0.01}}
        with ThreadPoolExecutor(60) as pool:
            many = running.client(greedy, limits=httpx.Limits(max_connections=100))
            flood = [pool.submit(many.post, CHAT, json=long) for _ in range(50)]
            time.sleep(0.3)
            client, waits = running.client(modest), []
            for _ in range(5):
                began = time.monotonic()
                assert client.post(CHAT, json=short).status_code == 200
                waits.append(time.monotonic() - began)
            unfinished = sum(not asked.done() for asked in flood)
            assert {asked.result().status_code for asked in flood} == {200}
        assert unfinished >= 20
        assert sorted(waits)[2] < 0.5  # in order of arrival it would be 2 s
        assert fake.most_running == 2


def test_a_locked_ledger_lets_nobody_in(tmp_path: Path) -> None:
    import sqlite3

    state = tmp_path / "state"
    key = add_tenant(state, "a")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "l") as running,
    ):
        client = running.client(key)
        assert client.post(CHAT, json=ASK).status_code == 200
        lock = sqlite3.connect(state / "ledger.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        refused = client.post(CHAT, json=ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        lock.execute("ROLLBACK")
        lock.close()
        time.sleep(0.5)
        assert client.post(CHAT, json=ASK).status_code == 200
        assert len(fake.seen) == 2
        assert at_rest(state, "a")["used"]["day"]["requests"] == 2


def test_a_full_disk_lets_nobody_in_and_is_forgiven(place: Place) -> None:
    """What the ledger cannot write down is not let in; with room again the door goes on, and nothing is lost."""
    import resource

    name, client = place.tenant("--tokens-per-day", "100000")
    before = place.state / "ledger.sqlite-wal"
    assert client.post(CHAT, json=ASK).status_code == 200
    pid, free = place.door.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(before.stat().st_size, 1), resource.RLIM_INFINITY))
    try:
        refused = [client.post(CHAT, json=ASK) for _ in range(3)]
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["error"]["code"] for answer in refused} == {"ledger_unavailable"}
    assert client.post(CHAT, json=ASK).status_code == 200
    used = at_rest(place.state, name)["used"]["day"]
    assert used["requests"] == 2


def test_a_slow_reader_fills_no_memory(place: Place) -> None:
    """A client that stops reading stops the engine, not the door: what waits for it is bounded, and comes whole."""
    import socket

    _, client = place.tenant("--tokens-per-day", "100000000")
    ask = ASK | {"stream": True, "max_tokens": 100_000, "fake": {"words": 1_500, "pad": 30_000}}
    body = json.dumps(ask).encode()
    statm = Path(f"/proc/{place.door.process.pid}/statm")

    def resident() -> int:
        return int(statm.read_text().split()[1]) * 4096

    address = httpx.URL(place.door.url)
    before = resident()
    with socket.create_connection((address.host, address.port or 0)) as reader:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {address.host}\r\nauthorization: {client.headers['authorization']}\r\n"
        reader.sendall(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        grown = 0
        for _ in range(10):
            time.sleep(0.1)
            grown = max(grown, resident() - before)
        received = b""
        while data := reader.recv(1 << 20):
            received += data
    assert grown < 40_000_000
    assert received.count(b"." * 30_000) == 1_500
    assert b"data: [DONE]" in received


def test_a_ledger_that_is_taken_away_lets_nobody_in(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "a")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "l") as running,
    ):
        client = running.client(key)
        assert client.post(CHAT, json=ASK).status_code == 200
        for file in state.glob("ledger.sqlite*"):
            file.rename(tmp_path / file.name)
        time.sleep(0.6)
        assert client.post(CHAT, json=ASK).status_code == 503
        assert client.get("/ready").status_code == 503
        for file in tmp_path.glob("ledger.sqlite*"):
            file.rename(state / file.name)
        assert client.post(CHAT, json=ASK).status_code == 200
        assert len(fake.seen) == 2


def test_a_template_that_adds_more_than_was_thought_is_reserved_from_then_on(tmp_path: Path) -> None:
    key = add_tenant(tmp_path / "state", "a", "--tokens-per-day", "1000")
    options = ("--state", str(tmp_path / "state"))
    answer = {"choices": [], "usage": {"prompt_tokens": 200, "completion_tokens": 10}}
    with fake_upstream() as fake, door(MODEL, "--upstream", fake.url, *options, log=tmp_path / "l") as running:
        client = running.client(key)
        ask = ASK | {"max_tokens": 10, "fake": {"answer": answer, "before": 0.1}}
        assert client.post(CHAT, json=ask).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: client.post(CHAT, json=ask).status_code, range(8)))
        assert statuses.count(200) == 3
        assert at_rest(tmp_path / "state", "a")["used"]["day"]["tokens"] == 840


def test_a_prompt_is_counted_only_where_a_limit_is_near(tmp_path: Path) -> None:
    state, fake = tmp_path / "state", Fake()
    fake.tokenizes = True
    ample, near = (
        add_tenant(state, name, "--tokens-per-day", limit) for name, limit in (("a", "10000000"), ("n", "500"))
    )
    answer = {"choices": [], "usage": {"prompt_tokens": 60, "completion_tokens": 10}}
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 50}], "max_tokens": 10}
    ask |= {"fake": {"answer": answer, "before": 0.3}}
    with fake_upstream(fake), door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "l") as running:
        before = fake.tokenized
        assert running.client(ample).post(CHAT, json=ask).status_code == 200
        assert fake.tokenized == before
        with ThreadPoolExecutor(8) as pool:  # by its 250 bytes only one would have room beside the others
            statuses = list(pool.map(lambda _: running.client(near).post(CHAT, json=ask).status_code, range(8)))
        assert fake.tokenized == before + 8
        assert 3 <= statuses.count(200) < 8
        assert at_rest(state, "n")["used"]["day"]["tokens"] == 70 * statuses.count(200)


def test_without_tenants_only_this_machine_may_ask(tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, log=tmp_path / "log", HALFBYTE_STATE=own) as running,
    ):
        client = running.client("whatever")
        assert client.post(CHAT, json=ASK).status_code == 200
        assert client.post(CHAT, json=ASK, headers={"origin": "https://evil.example"}).status_code == 403
        assert client.post(CHAT, json=ASK, headers={"host": "evil.example"}).status_code == 403
        assert client.get("/metrics").status_code == client.get("/console").status_code == 200
        key = json.loads(halfbyte("tenants", "add", "a", "--json", HALFBYTE_STATE=own))["key"]
        time.sleep(1)
        assert client.post(CHAT, json=ASK).status_code == 401
        assert running.client(key).post(CHAT, json=ASK).status_code == 200
        assert running.stop() == 0
