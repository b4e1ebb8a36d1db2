"""Whatever happens in whatever order: no limit is exceeded, reserved is 0 at rest, used is the sum of the ledger."""

import itertools
import sqlite3
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from halfbyte.serve.ledger.report import standing_of, usage
from halfbyte.serve.ledger.reserve import Ask, Refused, Reserved, reserve
from halfbyte.serve.ledger.script import Script, day_of
from halfbyte.serve.ledger.settle import beat, checkpoint, open_requests, settle
from halfbyte.serve.ledger.sqlite import drive
from halfbyte.serve.ledger.tables import TABLES
from halfbyte.serve.ledger.tenants import add_tenant
from halfbyte.serve.money import PICO, Price, Tokens
from halfbyte.serve.tenant import Limits

PRICE = Price(prompt=1_000_000, cached=100_000, output=4_000_000, reasoning=5_000_000)
START = 1_790_000_000.0
LIMITS = {
    "free": Limits(),
    "busy": Limits(concurrency=2),
    "frequent": Limits(requests_per_minute=3),
    "input": Limits(input_tokens_per_minute=60),
    "output": Limits(output_tokens_per_minute=40),
    "daily": Limits(tokens_per_day=100),
    "monthly": Limits(tokens_per_month=150, tokens_per_day=120),
    "money": Limits(usd_per_day=0.0003, usd_per_month=0.0005),
}


class Door:
    """A door that reserves, checkpoints, settles, dies and comes back, with a clock that jumps."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in TABLES:
            self.connection.execute(statement)
        self.now = START
        self.ids = itertools.count()
        self.open: dict[str, Reserved] = {}
        self.seen: dict[str, Tokens] = {}
        self.charged: list[tuple[str, float, float, Tokens]] = []  # tenant, started, ended, tokens
        self.started: dict[str, float] = {}
        self.jumped_back = False

    def run(self, script: Script[Any]) -> Any:
        with self.connection:
            return drive(self.connection, script)

    def tenants(self) -> None:
        for name, limits in LIMITS.items():
            assert self.run(add_tenant(name, limits, self.now))

    def ask(self, prompt: int, choices: int, max_tokens: int | None, room: int | None) -> None:
        tenant = self.tenant
        ask = Ask(f"r{next(self.ids)}", tenant, "m", prompt, choices, max_tokens, room)
        answer = self.run(reserve(ask, PRICE, "door", self.now))
        if isinstance(answer, Reserved):
            self.open[ask.id], self.started[ask.id] = answer, self.now
            if max_tokens is not None:
                assert answer.max_tokens == max_tokens
            elif answer.max_tokens is not None:
                assert 1 <= answer.max_tokens * choices == answer.output
        else:
            assert isinstance(answer, Refused)
            assert answer.retry_after_s >= 1
            assert tenant != "free"

    def chosen(self, which: int) -> str | None:
        """One of the open requests."""
        ids = sorted(self.open)
        return ids[which % len(ids)] if ids else None

    def delivered(self, reserved: Reserved, share: float) -> Tokens:
        """No more than was reserved."""
        output = int(reserved.output * share)
        return Tokens(reserved.ask.prompt, reserved.ask.prompt // 2, output, output // 3)

    def deliver(self, which: int, share: float) -> None:
        id = self.chosen(which)
        if id is None:
            return
        tokens = self.delivered(self.open[id], share)._replace(cached=0)
        self.run(checkpoint(id, tokens))
        self.seen[id] = tokens

    def finish(self, which: int, share: float, failed: bool) -> None:
        id = self.chosen(which)
        if id is None:
            return
        tokens = Tokens() if failed else self.delivered(self.open[id], share)
        assert self.run(settle(id, tokens, "failed" if failed else "200", self.now))
        assert not self.run(settle(id, Tokens(9, 0, 9, 0), "again", self.now))
        self.close(id, tokens)

    def close(self, id: str, tokens: Tokens) -> None:
        reserved = self.open.pop(id)
        self.charged.append((reserved.ask.tenant, self.started[id], self.now, tokens))
        self.seen.pop(id, None)

    def die(self) -> None:
        """What was open is charged by its last checkpoint, once, whoever asks."""
        for _ in range(2):
            for id in self.run(open_requests()):
                assert self.run(settle(id, None, "interrupted", self.now))
        for id in list(self.open):
            self.close(id, self.seen.get(id, Tokens()))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.run(beat("door", self.now, seconds, None))

    def jump_back(self, seconds: float) -> None:
        self.now -= seconds
        self.jumped_back = True

    def month_of(self, started: float) -> str:
        return day_of(started)[:7]

    def adds_up(self) -> None:
        for tenant, limits in [(self.tenant, LIMITS[self.tenant])]:
            mine = [entry for entry in self.charged if entry[0] == tenant]
            today = [e for e in mine if day_of(e[1]) == day_of(self.now)]
            month = [e for e in mine if self.month_of(e[1]) == self.month_of(self.now)]
            shown = self.run(standing_of(tenant, self.now))
            for period, entries in (("day", today), ("month", month)):
                used = shown["used"][period]
                assert used["requests"] == len(entries)
                assert used["tokens"] == sum(e[3].total for e in entries)
                assert used["usd"] == pytest.approx(sum(PRICE.of(e[3]) for e in entries) / PICO, abs=1e-15)
            mine_open = [r for r in self.open.values() if r.ask.tenant == tenant]
            assert shown["reserved"]["requests"] == len(mine_open)
            assert shown["reserved"]["tokens"] == sum(r.ask.prompt + r.output for r in mine_open)
            for name, entries in (("day", today), ("month", month)):
                tokens, usd = getattr(limits, f"tokens_per_{name}"), getattr(limits, f"usd_per_{name}")
                assert tokens is None or sum(e[3].total for e in entries) <= tokens
                assert usd is None or sum(PRICE.of(e[3]) for e in entries) <= usd * PICO
            assert limits.concurrency is None or len(mine_open) <= limits.concurrency
            if not self.jumped_back:
                self.within_a_minute(tenant, limits, mine)

    def within_a_minute(self, tenant: str, limits: Limits, mine: list[tuple[str, float, float, Tokens]]) -> None:
        """In no sixty seconds did more start, or end, than the limits of a minute allow."""
        starts = [e[1] for e in mine] + [self.started[i] for i, r in self.open.items() if r.ask.tenant == tenant]
        for moment in starts:
            if limits.requests_per_minute is not None:
                assert sum(moment <= other < moment + 60 for other in starts) <= limits.requests_per_minute
        for _, _, ended, _ in mine:
            within = [e[3] for e in mine if ended <= e[2] < ended + 60]
            if limits.input_tokens_per_minute is not None:
                assert sum(t.prompt for t in within) <= limits.input_tokens_per_minute
            if limits.output_tokens_per_minute is not None:
                assert sum(t.output for t in within) <= limits.output_tokens_per_minute

    def used_is_the_sum_of_the_ledger(self) -> None:
        rows = self.run(usage(()))
        total = rows[0] if rows else {"requests": 0, "prompt_tokens": 0, "output_tokens": 0, "usd_pico": 0}
        assert total["requests"] == len(self.charged)
        assert total["prompt_tokens"] == sum(e[3].prompt for e in self.charged)
        assert total["output_tokens"] == sum(e[3].output for e in self.charged)
        assert total["usd_pico"] == sum(PRICE.of(e[3]) for e in self.charged)

    def rest(self) -> None:
        for id in list(self.open):
            self.run(settle(id, Tokens(), "gone", self.now))
        for tenant in LIMITS:
            assert self.run(standing_of(tenant, self.now))["reserved"] == {"requests": 0, "tokens": 0, "usd": 0}


ASKS = st.tuples(
    st.just("ask"),
    st.integers(0, 30),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.none() | st.integers(1, 50),
    st.none() | st.integers(1, 80),
)
WHICH, SHARE = st.integers(0, 50), st.sampled_from([0.0, 0.5, 1.0, 1.0])
STEPS = st.one_of(
    ASKS,
    ASKS,
    ASKS,
    st.tuples(st.just("deliver"), WHICH, SHARE),
    st.tuples(st.just("finish"), WHICH, SHARE, st.sampled_from([False, False, False, True])),
    st.tuples(st.just("finish"), WHICH, SHARE, st.just(False)),
    st.tuples(st.just("wait"), st.sampled_from([0.2, 1, 5, 20, 59.9, 61])),
    st.tuples(st.sampled_from(["wait", "jump_back"]), st.sampled_from([1, 100, 5000])),
    st.just(("die",)),
)


@pytest.mark.parametrize("tenant", LIMITS)
@given(steps=st.lists(STEPS, min_size=10, max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_interleaving_adds_up(tenant: str, steps: list[tuple[Any, ...]]) -> None:
    door = Door(tenant)
    try:
        door.tenants()
        for name, *values in steps:
            getattr(door, name)(*values)
            door.adds_up()
        door.used_is_the_sum_of_the_ledger()
        door.rest()
    finally:
        door.connection.close()
