"""The ledger in its file: on the disk before anyone is told, nothing lost by a kill, damage keeps the door shut."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.report import standing_of, usage
from halfbyte.serve.ledger.reserve import Ask, Reserved, TooRough, reserve
from halfbyte.serve.ledger.script import Script
from halfbyte.serve.ledger.settle import open_requests, settle
from halfbyte.serve.ledger.sqlite import FILE, SqliteLedger
from halfbyte.serve.ledger.tenants import add_key, add_tenant, end_keys, find_key
from halfbyte.serve.money import FREE, PICO, Price, Tokens
from halfbyte.serve.tenant import Limits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SqliteLedger.create(tmp_path)
    return tmp_path


def test_many_threads_never_pass_a_limit_together(folder: Path) -> None:
    ledger = SqliteLedger(folder)
    ledger.run(add_tenant("t", Limits(tokens_per_day=1000), 1.0))
    taken: list[int] = []

    def ask(worker: int) -> None:
        for n in range(50):
            answer = ledger.run(reserve(Ask(f"{worker}-{n}", "t", "m", 3, 1, 7), FREE, "d", 2.0))
            if isinstance(answer, Reserved):
                taken.append(10)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000
    assert ledger.run(standing_of("t", 2.0))["reserved"]["tokens"] == 1000
    ledger.close()


@pytest.mark.parametrize("limits", [Limits(tokens_per_day=30_000), Limits(usd_per_month=30)])
def test_a_rough_bound_is_enough_for_a_thousandth_of_what_is_left(folder: Path, limits: Limits) -> None:
    ledger, dollar = SqliteLedger(folder), Price(*[PICO // 1000] * 4)
    ledger.run(add_tenant("t", limits, 1.0))
    ask = Ask("a", "t", "m", 20, 1, 10, rough=True)
    assert isinstance(ledger.run(reserve(ask, dollar, "d", 2.0)), Reserved)
    assert ledger.run(reserve(ask._replace(id="b"), dollar, "d", 2.0)) == TooRough()
    assert isinstance(ledger.run(reserve(ask._replace(id="b", rough=False), dollar, "d", 2.0)), Reserved)
    assert ledger.run(standing_of("t", 2.0))["reserved"]["tokens"] == 60
    ledger.close()


KILLED = """
import sys
from halfbyte.serve.ledger.reserve import Ask, reserve
from halfbyte.serve.ledger.settle import checkpoint, settle
from halfbyte.serve.ledger.sqlite import SqliteLedger
from halfbyte.serve.money import FREE, Tokens
from pathlib import Path
ledger = SqliteLedger(Path(sys.argv[1]))
n = 0
while True:
    ledger.run(reserve(Ask(f"r{n}", "t", "m", 1, 1, 9), FREE, "d", 5.0))
    ledger.run(checkpoint(f"r{n}", Tokens(1, 0, 4, 0)))
    print("reserved", n, flush=True)
    if n % 2:
        ledger.run(settle(f"r{n}", Tokens(1, 0, 9, 0), "200", 6.0))
        print("settled", n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("delay_s", [0.3, 0.45, 0.6, 0.75])
def test_a_killed_door_is_settled_by_its_last_checkpoint(folder: Path, delay_s: float) -> None:
    ledger = SqliteLedger(folder)
    ledger.run(add_tenant("t", Limits(), 1.0))
    ledger.close()
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("reserved")
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    lines = process.stdout.read().splitlines()
    process.wait()
    ledger = SqliteLedger(folder)
    before = ledger.run(usage(()))
    settled = max([int(line.split()[1]) for line in lines if line.startswith("settled")], default=-1)
    assert (before[0]["requests"] if before else 0) >= (settled + 1) // 2  # what was told is there
    still_open = ledger.run(open_requests())
    for id in still_open:
        assert ledger.run(settle(id, None, "interrupted", 7.0))
    found = ledger.run(usage(("request",)))
    outputs = {row["request"]: (row["status"], row["output_tokens"]) for row in found}
    assert all(outputs[id][0] == "interrupted" and outputs[id][1] in (0, 4) for id in still_open)
    assert ledger.run(standing_of("t", 7.0))["reserved"] == {"requests": 0, "tokens": 0, "usd": 0}
    assert len(found) == len(outputs)
    ledger.close()


def test_a_ledger_that_is_not_sound_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        SqliteLedger(tmp_path / "nowhere")
    file = folder / FILE
    sound = file.read_bytes()
    for damaged in (b"", b"not a database at all" * 100, sound[:4096], sound[:4096] + b"\xff" * 300 + sound[4396:]):
        for leftover in folder.glob(f"{FILE}-*"):
            leftover.unlink()
        file.write_bytes(damaged)
        with pytest.raises(LedgerError):
            SqliteLedger(folder)
    file.write_bytes(sound)
    SqliteLedger(folder).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    with pytest.raises(LedgerError, match="of version 99"):
        SqliteLedger(folder)


def test_a_locked_ledger_is_an_error_and_no_hang(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halfbyte.serve.ledger.sqlite.BUSY_MS", 200)
    ledger = SqliteLedger(folder)
    other = sqlite3.connect(folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked"):
        ledger.run(add_tenant("t", Limits(), 1.0))
    other.execute("ROLLBACK")
    assert ledger.run(add_tenant("t", Limits(), 1.0))
    other.close()
    ledger.close()


def test_a_script_that_fails_leaves_its_group_alone(folder: Path) -> None:
    ledger = SqliteLedger(folder)

    def wrong() -> Script[None]:
        yield "INSERT INTO tenants (name, limits, created) VALUES ('half', '{}', 1)", {}
        raise ValueError("no")

    futures: list[Future[Any]] = [ledger.submit(add_tenant("a", Limits(), 1.0)), ledger.submit(wrong())]
    futures.append(ledger.submit(add_tenant("b", Limits(), 1.0)))
    assert futures[0].result()
    assert futures[2].result()
    with pytest.raises(ValueError, match="no"):
        futures[1].result()
    assert ledger.run(add_tenant("half", Limits(), 1.0))
    ledger.close()


def test_two_keys_live_while_rotating(folder: Path) -> None:
    ledger = SqliteLedger(folder)
    ledger.run(add_tenant("t", Limits(priority=3), 1.0))
    for n in range(3):
        ledger.run(add_key("t", f"hash{n}", f"prefix{n}", 10.0 + n, None))
    assert ledger.run(find_key("hash0")) is None
    key = ledger.run(find_key("hash1"))
    assert key is not None
    assert (key.tenant, key.prefix, key.limits.priority) == ("t", "prefix1", 3)
    assert ledger.run(end_keys("t", keep="hash2")) == 1
    assert ledger.run(find_key("hash1")) is None
    assert ledger.run(settle("nothing", Tokens(), "x", 1.0)) is False
    assert ledger.run(end_keys("t")) == 1
    ledger.close()


def test_a_waiter_that_gives_up_takes_nothing_back(folder: Path) -> None:
    """A door that is told to end while the ledger writes cancels what waits for it."""
    ledger = SqliteLedger(folder)
    asked: Future[Any] = ledger.submit(add_tenant("t", Limits(), 1.0))
    assert not asked.cancel()
    asked.result(timeout=5)
    assert ledger.run(standing_of("t", 2.0))["reserved"]["tokens"] == 0
    ledger.close()
