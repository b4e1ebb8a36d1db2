"""Real runs against servers on this machine: what is asked, resumed, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .server import Served, served

ITEMS = 40


def write_suite(folder: Path, count: int = ITEMS, **more: Any) -> Path:
    path = folder / "ours.jsonl"
    items = [{"id": f"i{i}", "prompt": f"q{i}", "reference": "yes", "checker": "exact"} | more for i in range(count)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def command(suite: Path, candidate: str, *more: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "halfbyte",
        "evaluate",
        "--suite",
        str(suite),
        "--candidate",
        candidate,
        *map(str, more),
    ]


def run(*arguments: Any, key: str | None = None) -> tuple[int, dict[str, Any], str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    if key is not None:
        environment["OURS"] = key
    done = subprocess.run(command(*arguments, "--json"), capture_output=True, text=True, timeout=300, env=environment)
    return done.returncode, json.loads(done.stdout), done.stderr


def every_third_wrong(text: str) -> str:
    return "no" if int(text[1:]) % 3 == 0 else "<think>hm</think>\n\nyes"


def test_two_arms_one_verdict_and_a_finished_run_asks_nothing(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    with served(every_third_wrong) as candidate, served(lambda _: "yes") as baseline:
        arguments = (suite, candidate.url, "--baseline", f"{baseline.url}#m", "--margin", 20, "--anyway")
        code, first, _ = run(*arguments, "--work", tmp_path / "work")
        assert (code, first["verdict"]) == (1, "FAIL")
        assert (first["suites"][0]["n"], first["suites"][0]["candidate"]) == (ITEMS, pytest.approx(100 * 26 / 40))
        assert set(candidate.asked.values()) == set(baseline.asked.values()) == {1}
        assert {body["temperature"] for body in candidate.bodies} == {0.0}
        assert Path(first["log"]).exists()
    again = run(*arguments, "--work", tmp_path / "work")
    assert again[:2] == (code, first), "the servers are gone: nothing was asked"
    code, said, _ = run(*arguments, "--work", tmp_path / "work", "--temperature", 1)
    assert code == 1
    assert "its temperature is 0.0, wanted 1.0" in said["error"]["message"]


def test_truncation_epochs_clusters_and_keys(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, 8, cluster="one source")
    with served(lambda _: ("yes", "length"), key="secret") as target:
        more = ("--epochs", 2, "--limit", 5, "--key-env", "OURS")
        code, found, _ = run(suite, target.url, "--baseline", target.url, "--anyway", *more, key="secret")
        assert (code, found["verdict"]) == (3, "INCONCLUSIVE")
        assert (found["suites"][0]["n"], found["suites"][0]["clusters"]) == (5, 1)
        assert found["suites"][0]["truncated"] == {"candidate": 10, "baseline": 10}
        code, found, _ = run(suite, target.url, *more)
        assert (code, "401" in found["error"]["message"]) == (1, True)


def test_a_candidate_alone_gets_a_score_and_no_verdict(tmp_path: Path) -> None:
    with served(every_third_wrong) as target:
        code, found, _ = run(write_suite(tmp_path, 9), target.url)
    assert (code, found["verdict"], found["suites"][0]["n"]) == (0, None, 9)
    assert found["suites"][0]["candidate"] == pytest.approx(100 * 6 / 9)


def test_a_run_that_cannot_decide_asks_nothing(tmp_path: Path) -> None:
    with served(every_third_wrong) as target:
        code, found, _ = run(write_suite(tmp_path), target.url, "--baseline", target.url, "--margin", 1)
        assert (code, found["error"]["kind"]) == (3, "undecidable")
        assert "--anyway" in found["error"]["hint"]
        assert not target.asked


@pytest.mark.parametrize(
    ("suite", "target", "code", "told"),
    [
        (None, "http://127.0.0.1:9/v1", 1, "does not answer"),
        (None, "ftp://x", 2, "no http or https URL"),
        (None, "folder", 1, "only a served model"),
        ("glm-5.2", "http://127.0.0.1:9/v1", 1, "cannot be asked yet|does not answer"),
    ],
)
def test_what_cannot_be_asked(suite: str | None, target: str, code: int, told: str, tmp_path: Path) -> None:
    status, found, _ = run(suite or write_suite(tmp_path), target)
    assert status == code
    assert any(one in found["error"]["message"] for one in told.split("|"))


def test_a_server_that_breaks_is_an_error_and_no_wrong_answers(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    broken = True

    def answer(text: str) -> str | int:
        return 400 if broken and int(text[1:]) >= 20 else "yes"

    with served(answer) as target:
        code, found, _ = run(suite, target.url, "--work", tmp_path / "work")
        assert (code, "the run stopped" in found["error"]["message"]) == (1, True)
        broken = False
        code, found, _ = run(suite, target.url, "--work", tmp_path / "work")
        assert (code, found["suites"][0]["n"], found["suites"][0]["candidate"]) == (0, ITEMS, 100.0)


def slow(text: str) -> str:
    time.sleep(0.05)
    return every_third_wrong(text)


def killed_at(target: Served, suite: Path, work: Path, seconds: float) -> None:
    process = subprocess.Popen(
        command(suite, target.url, "--work", work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    while not target.asked and process.poll() is None and time.monotonic() - began < 60:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_and_resumed(tmp_path: Path) -> None:
    suite, chance = write_suite(tmp_path, 60), random.Random(5)
    with served(slow) as target:
        for _ in range(3):
            killed_at(target, suite, tmp_path / "work", chance.uniform(0, 0.4))
        code, found, _ = run(suite, target.url, "--work", tmp_path / "work")
        assert (code, found["suites"][0]["n"], found["suites"][0]["failed"]["candidate"]) == (0, 60, 0)
        assert found["suites"][0]["candidate"] == pytest.approx(100 * 40 / 60)
        assert len(target.asked) == 60
