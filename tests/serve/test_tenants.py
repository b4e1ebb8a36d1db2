"""`halfbyte tenants` and `halfbyte usage`, by their words and documents."""

import csv
import io
import json
import re
import time
from pathlib import Path

import pytest

from halfbyte.errors import UsageError
from halfbyte.serve.focus import focus_csv
from halfbyte.serve.ledger.reserve import Ask, reserve
from halfbyte.serve.ledger.settle import beat, settle
from halfbyte.serve.ledger.sqlite import SqliteLedger
from halfbyte.serve.ledger.tenants import add_tenant as add
from halfbyte.serve.money import PICO, Price, Tokens, read_prices
from halfbyte.serve.tenant import Limits
from halfbyte.serve.usage import UsageQuery, as_csv, usage_document
from serve.doors import add_tenant, halfbyte, show

LIMITS = {
    "requests_per_minute": 60,
    "input_tokens_per_minute": 1000,
    "output_tokens_per_minute": 500,
    "concurrency": 4,
    "tokens_per_day": 100_000,
    "tokens_per_month": 1_000_000,
    "usd_per_day": 1.5,
    "usd_per_month": 20.0,
    "priority": 3,
    "models": ["a", "b"],
}
NOTHING = {"requests": 0, "tokens": 0, "usd": 0.0}


def test_the_life_of_a_tenant(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    words = [f"--{name.replace('_', '-')}={','.join(v) if isinstance(v, list) else v}" for name, v in LIMITS.items()]
    added = json.loads(halfbyte("tenants", "add", "acme", *state, *words, "--expires", "2099-12-31", "--json"))
    assert set(added) == {"tenant", "key"}
    assert re.fullmatch(r"hb-[0-9a-f]{8}-[A-Za-z0-9_-]{43}", added["key"])
    shown = show(tmp_path / "state", "acme")
    assert {name: shown["limits"][name] for name in LIMITS} == LIMITS
    assert (shown["used"], shown["reserved"]) == ({"day": NOTHING, "month": NOTHING}, NOTHING)
    assert shown["keys"] == [{"prefix": added["key"][3:11], "expires": "2099-12-31"}]
    assert json.loads(halfbyte("tenants", "list", *state, "--json")) == [shown]
    assert "is a tenant" in halfbyte("tenants", "add", "acme", *state, code=1)
    rotated = json.loads(halfbyte("tenants", "rotate", "acme", *state, "--json"))
    assert rotated["key"] != added["key"]
    assert len(show(tmp_path / "state", "acme")["keys"]) == 2
    halfbyte("tenants", "rotate", "acme", *state, "--retire")
    assert len(show(tmp_path / "state", "acme")["keys"]) == 1
    halfbyte("tenants", "revoke", "acme", *state)
    assert show(tmp_path / "state", "acme")["keys"] == []
    for secret in (added["key"], rotated["key"]):
        for file in (tmp_path / "state").iterdir():
            assert secret[12:].encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "nobody"), 1),
        (("rotate", "nobody"), 1),
        (("revoke", "nobody"), 1),
        (("add", "x", "--concurrency", "0"), 2),
        (("add", "x", "--usd-per-day", "nan"), 2),
        (("add", "x", "--tokens-per-day", "1.5"), 2),
        (("add", "x", "--expires", "tomorrow"), 2),
        (("add", "../x"), 2),
        (("add", "idle"), 2),
        (("frobnicate",), 2),
    ],
)
def test_what_is_refused(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    add_tenant(tmp_path / "state", "known")
    halfbyte("tenants", words[0], *words[1:], "--state", str(tmp_path / "state"), code=code)


def test_states_that_are_not_there(tmp_path: Path) -> None:
    for command in (("tenants", "list"), ("usage",), ("tenants", "rotate", "a")):
        assert "no ledger" in halfbyte(*command, "--state", str(tmp_path / "none"), code=1)
    assert not (tmp_path / "none").exists()


PRICE = Price(prompt=1_000_000, cached=100_000, output=4_000_000, reasoning=5_000_000)
DAY = 86400.0
START = 1_790_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    """Two tenants, two models, two days, and machines that cost 2 dollars an hour for two hours a day."""
    SqliteLedger.create(tmp_path)
    ledger = SqliteLedger(tmp_path)
    for name in ("a", "b"):
        ledger.run(add(name, Limits(), START))
    for number in range(12):
        now = START + DAY * (number % 2)
        ledger.run(reserve(Ask(f"r{number}", "ab"[number % 3 == 0], f"m{number % 2}", 100, 1, 50), PRICE, "d", now))
        ledger.run(settle(f"r{number}", Tokens(100 + number, 40, 50, 20), "completed", now))
    for day in range(2):
        ledger.run(beat("d", START + DAY * day, 7200.0, 2.0))
    return ledger


def test_tenants_and_idle_make_the_pool(ledger: SqliteLedger) -> None:
    for by in (("tenant",), ("tenant", "model", "day"), ("day",), ("request",), ("model",)):
        document = ledger.run(usage_document(UsageQuery(by)))
        assert document["totals"]["usd"] == pytest.approx(8.0, abs=1e-9)
        assert document["totals"]["requests"] == 12
        assert document["totals"]["prompt_tokens"] == sum(100 + n for n in range(12))
    rows = ledger.run(usage_document(UsageQuery(("tenant",))))["rows"]
    assert [row["tenant"] for row in rows] == ["a", "b", "idle"]
    assert all(row["usd"] > 0 for row in rows)
    own = ledger.run(usage_document(UsageQuery(tenant="a")))["rows"]
    assert {row["tenant"] for row in own} == {"a"}
    first = ledger.run(usage_document(UsageQuery(("day",), until="2026-09-21")))["totals"]
    assert first["requests"] == 6
    assert ledger.run(usage_document(UsageQuery(since="2027-01-01")))["rows"] == []


def test_csv_and_focus_say_the_same(ledger: SqliteLedger) -> None:
    query = UsageQuery()
    document = ledger.run(usage_document(query))
    rows = list(csv.DictReader(io.StringIO(as_csv(document, query))))
    assert len(rows) == len(document["rows"])
    assert sum(float(row["usd"]) for row in rows) == pytest.approx(8.0)
    charges = list(csv.DictReader(io.StringIO(ledger.run(focus_csv(query)))))
    assert sum(float(row["BilledCost"]) for row in charges) == pytest.approx(8.0)
    tokens = sum(int(row["ConsumedQuantity"]) for row in charges if row["SubAccountId"] != "idle")
    assert tokens == document["totals"]["prompt_tokens"] + document["totals"]["output_tokens"]
    for row in charges:
        if row["SubAccountId"] != "idle":
            assert float(row["PricingQuantity"]) * float(row["ListUnitPrice"]) == pytest.approx(float(row["ListCost"]))


def test_prices(tmp_path: Path) -> None:
    file = tmp_path / "price.json"
    kinds = {"prompt": 1, "cached": 0.1, "output": 4, "reasoning": 5.123456}
    file.write_text(json.dumps({"usd_per_million_tokens": {"m": kinds}, "usd_per_hour": 12.5}))
    prices = read_prices(file, "m")
    assert prices.models["m"] == Price(10**6, 10**5, 4 * 10**6, 5_123_456)
    assert prices.pool_usd_per_hour == 12.5
    assert prices.models["m"].of(Tokens(10, 4, 8, 3)) == (6 * 10**6 + 4 * 10**5 + 5 * 4 * 10**6 + 3 * 5_123_456)
    planned = {"input": 0.5, "cached_input": 0.05, "output": 2.0, "reasoning": 2.0, "visible_output": 3.0}
    file.write_text(json.dumps({"cost": {"usd_per_million": planned, "pool_per_hour": 40.0}, "fits": True}))
    assert read_prices(file, "q").models["q"].output == 2 * PICO // 10**6
    for wrong in (
        "{}",
        "[]",
        '{"usd_per_million_tokens": {"m": {"prompt": 1}}}',
        json.dumps({"usd_per_million_tokens": {"m": kinds | {"prompt": -1}}}),
        json.dumps({"usd_per_million_tokens": {"m": kinds | {"prompt": "1"}}}),
        '{"cost": {}}',
    ):
        file.write_text(wrong)
        with pytest.raises(UsageError):
            read_prices(file, "m")


def test_usage_is_quick_and_literal(tmp_path: Path) -> None:
    add_tenant(tmp_path / "s", "a")
    began = time.monotonic()
    document = json.loads(halfbyte("usage", "--state", str(tmp_path / "s"), "--format", "json"))
    assert time.monotonic() - began < 5
    kinds = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    assert document == {"rows": [], "totals": dict.fromkeys(kinds, 0) | {"usd": 0.0}}
    halfbyte("usage", "--state", str(tmp_path / "s"), "--by", "planet", code=2)
    halfbyte("usage", "--state", str(tmp_path / "s"), "--since", "yesterday", code=2)
