"""The ledger on a real PostgreSQL: the same scripts, several doors, a killed one settled by another."""

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.opening import open_ledger
from halfbyte.serve.ledger.postgres import PostgresLedger
from halfbyte.serve.ledger.report import standing_of, usage
from halfbyte.serve.ledger.reserve import Ask, Reserved, reserve
from halfbyte.serve.ledger.settle import beat, checkpoint, open_requests, settle
from halfbyte.serve.ledger.tenants import add_tenant as add
from halfbyte.serve.money import Price, Tokens
from halfbyte.serve.tenant import Limits
from serve.doors import MODEL, add_tenant, door, halfbyte, show
from serve.doors import usage as usage_of
from serve.fakes import fake_upstream
from serve.postgres import binaries, postgres

pytestmark = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL is installed")
PRICE = Price(prompt=1_000_000, cached=100_000, output=4_000_000, reasoning=5_000_000)
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as found:
        yield found


def test_nothing_is_there_until_a_tenant_is_added(url: str) -> None:
    with pytest.raises(LedgerError):
        asyncio.run(open_ledger(url))
    halfbyte("tenants", "list", "--state", url, code=1)


@pytest.mark.parametrize(
    "limits", [Limits(tokens_per_day=500), Limits(concurrency=3), Limits(output_tokens_per_minute=300)]
)
def test_many_at_once_conserve(url: str, limits: Limits) -> None:
    """Interleaved reservations, checkpoints, settlements and deaths of two doors: no limit passed, nothing leaks."""

    async def run() -> None:
        ledgers = [PostgresLedger(url), PostgresLedger(url)]
        await ledgers[0].create()
        name = f"t{random.randrange(10**9)}"
        await ledgers[0].run(add(name, limits, time.time()))
        running = most = 0

        async def ask(number: int) -> None:
            nonlocal running, most
            chance = random.Random(number)
            ledger = ledgers[number % 2]
            id = f"{name}-{number}"
            got = await ledger.run(reserve(Ask(id, name, "m", 5, 1, 20), PRICE, f"d{number % 2}", time.time()))
            if not isinstance(got, Reserved):
                return
            running += 1
            most = max(most, running)
            await asyncio.sleep(chance.random() / 50)
            tokens = Tokens(5, 0, chance.randrange(21))
            running -= 1
            await ledger.run(checkpoint(id, tokens))
            if chance.random() < 0.7:
                await asyncio.gather(*(one.run(settle(id, tokens, "completed", time.time())) for one in ledgers))

        await asyncio.gather(*(ask(number) for number in range(60)))
        for id in await ledgers[1].run(open_requests()):
            await asyncio.gather(*(one.run(settle(id, None, "interrupted", time.time())) for one in ledgers))
        standing = await ledgers[0].run(standing_of(name, time.time()))
        assert standing["reserved"] == {"requests": 0, "tokens": 0, "usd": 0.0}
        rows = [row for row in await ledgers[0].run(usage(("tenant",))) if row["tenant"] == name]
        total = rows[0]["prompt_tokens"] + rows[0]["output_tokens"]
        assert standing["used"]["day"] == {
            "requests": rows[0]["requests"],
            "tokens": total,
            "usd": rows[0]["usd_pico"] / 1e12,
        }
        assert limits.concurrency is None or most <= limits.concurrency
        assert limits.tokens_per_day is None or total <= limits.tokens_per_day
        assert limits.output_tokens_per_minute is None or rows[0]["output_tokens"] <= limits.output_tokens_per_minute
        await ledgers[0].run(beat("d0", time.time(), 1.0, 3.0))
        for ledger in ledgers:
            await ledger.close()

    asyncio.run(run())


def test_two_doors_share_limits_and_settle_each_other(url: str, tmp_path: Path) -> None:
    key = add_tenant(url, "shared", "--requests-per-minute", "12")
    free = add_tenant(url, "free")
    with fake_upstream() as fake:
        options = ("--upstream", fake.url, "--state", url)
        with (
            door(MODEL, *options, log=tmp_path / "one") as one,
            door(MODEL, *options, log=tmp_path / "two") as two,
            ThreadPoolExecutor(12) as pool,
        ):
            clients = [one.client(key), two.client(key)]
            answers = pool.map(lambda n: clients[n % 2].post(CHAT, json=ASK).status_code, range(40))
            statuses = list(answers)
            assert statuses.count(200) == 12
            assert statuses.count(429) == 28
            body: dict[str, Any] = ASK | {"stream": True, "max_tokens": 2000, "fake": {"words": 2000, "pace": 0.001}}
            with one.client(free).stream("POST", CHAT, json=body) as answer:
                got = 0
                for line in answer.iter_lines():
                    got += '"content": "w' in line
                    if got == 400:
                        one.kill()
                        break
            assert show(url, "free")["reserved"]["requests"] == 1
            until = time.monotonic() + 20
            while show(url, "free")["reserved"]["requests"]:
                assert time.monotonic() < until
            assert two.client(free).get("/ready").status_code == 200
    (row,) = [row for row in usage_of(url, "--by", "request")["rows"] if row["tenant"] == "free"]
    assert row["status"] == "interrupted"
    assert 256 <= row["output_tokens"] <= 600
    assert "halfbyte@" not in (tmp_path / "two").read_text()


def test_a_database_that_goes_away_lets_nobody_in(tmp_path: Path) -> None:
    with fake_upstream() as fake:
        with postgres() as url:
            key = add_tenant(url, "a")
            context = door(MODEL, "--upstream", fake.url, "--state", url, log=tmp_path / "log")
            running = context.__enter__()
            assert running.client(key).post(CHAT, json=ASK).status_code == 200
        refused = running.client(key).post(CHAT, json=ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        running.kill()
        context.__exit__(None, None, None)
