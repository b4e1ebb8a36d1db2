"""Real runs against servers on this machine: what is asked, resumed, refused."""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from ..commands import Running, halfbyte
from .server import Served, served

ITEMS = 40


def write_suite(folder: Path, count: int = ITEMS, **more: Any) -> Path:
    path = folder / "ours.jsonl"
    items = [{"id": f"i{i}", "prompt": f"q{i}", "reference": "yes", "checker": "exact"} | more for i in range(count)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def command(suite: Path, candidate: str, *more: object) -> list[object]:
    return ["evaluate", "--suite", suite, "--candidate", candidate, *more]


def run(*arguments: Any, key: str | None = None) -> tuple[int, dict[str, Any], str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    if key is not None:
        environment["OURS"] = key
    done = halfbyte(*command(*arguments, "--json"), env=environment)
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
        (None, "folder", 1, "no such checkpoint folder"),
        (None, "http://127.0.0.1:9/v1#m", 1, "does not answer"),
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


def killed_at(target: Served, suite: Path, work: Path, seconds: float, *more: object) -> None:
    process = Running(*command(suite, target.url, *more, "--work", work))
    began = time.monotonic()
    while not target.asked and time.monotonic() - began < 60:
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
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


@pytest.mark.slow
def test_killed_ten_times_and_resumed(tmp_path: Path) -> None:
    """The same items, none asked again once answered, and the verdict of a run that nobody killed."""
    suite, chance = write_suite(tmp_path, 200), random.Random(7)
    with served(slow) as target, served(lambda _: "yes") as baseline:
        more = ("--baseline", f"{baseline.url}#m", "--margin", 20, "--anyway")
        for _ in range(10):
            killed_at(target, suite, tmp_path / "work", chance.uniform(0, 1.5), *more)
        code, found, _ = run(suite, target.url, *more, "--work", tmp_path / "work")
        assert len(target.asked) == len(baseline.asked) == 200
    with served(every_third_wrong) as target, served(lambda _: "yes") as baseline:
        other, whole, _ = run(suite, target.url, "--baseline", f"{baseline.url}#m", "--margin", 20, "--anyway")
    assert (code, found["verdict"], found["suites"]) == (other, whole["verdict"], whole["suites"])
    records = json.loads((tmp_path / "work" / "evidence.json").read_text())["items"]["ours"]
    assert [len(row["candidate"]) for row in records] == [1] * 200


@pytest.mark.slow
def test_a_judge_grades_and_its_errors_are_no_wrong_answers(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, checker="judge")

    def grade(asked: str) -> str:
        answer = asked.split("<answer>\n")[1].split("\n</answer>")[0]
        if "q7\n" in asked:
            return "I cannot say."
        return f"GRADE: {'CORRECT' if answer == 'yes' else 'INCORRECT'}"

    with served(every_third_wrong) as target, served(lambda _: "yes") as baseline, served(grade) as judge:
        arguments = (suite, target.url, "--baseline", f"{baseline.url}#m", "--margin", 5, "--anyway")
        code, found, _ = run(*arguments)
        assert (code, "--judge TARGET" in found["error"]["message"]) == (2, True)
        code, found, _ = run(*arguments, "--judge", judge.url, "--work", tmp_path / "work")
        row = found["suites"][0]
        assert (code, row["n"], row["unscorable"]) == (1, 39, {"candidate": 1, "baseline": 1})
        assert row["candidate"] == pytest.approx(100 * 25 / 39)
        assert found["judge"] == {"target": f"{judge.url}#m", "error_rate": {"candidate": 1 / 40, "baseline": 1 / 40}}
        assert found["conditions"]["judge"] == f"{judge.url}#m"
        assert {body["temperature"] for body in judge.bodies} == {0.0}
    with served(every_third_wrong) as target, served(lambda _: 400) as judge:
        code, found, _ = run(suite, target.url, "--judge", judge.url)
        assert (code, "the judge gave no grade for 40 of 40" in found["error"]["message"]) == (1, True)


@pytest.mark.slow
def test_sequential_stops_when_decided_and_says_the_same_again(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, 400)
    with served(every_third_wrong) as target, served(lambda _: "yes") as baseline:
        arguments = (suite, target.url, "--baseline", f"{baseline.url}#m", "--margin", 5, "--sequential", "--anyway")
        code, found, _ = run(*arguments, "--work", tmp_path / "work")
        asked = found["sequential"]["asked"]
        assert (code, found["verdict"], found["sequential"]["decided"]) == (1, "FAIL", True)
        assert asked < 400
        assert found["suites"][0]["n"] == asked == sum(target.asked.values()) == sum(baseline.asked.values())
        assert found["suites"][0]["interval"][1] < -5
    assert run(*arguments, "--work", tmp_path / "work")[:2] == (code, found), "the servers are gone"


def test_calibrate_asks_one_model_with_other_seeds(tmp_path: Path) -> None:
    suite, turn = write_suite(tmp_path, 30), iter(range(10_000))
    with served(lambda text: "yes" if int(text[1:]) % 2 or next(turn) % 2 else "no") as target:
        more = ("--calibrate", "--epochs", 3, "--margin", 30, "--temperature", 1)
        code, found, _ = run(suite, target.url, *more)
    row = found["suites"][0]
    assert (code, row["n"], row["runs"]) == (0, 30, 3)
    assert 0 < row["flip_rate"] < 0.5
    assert len(found["verdicts"]) == 2
    assert len({body["seed"] for body in target.bodies}) == 90, "items that share a seed are wrong together"


def test_rates_move_before_accuracy(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)

    def refusing(text: str) -> str:
        return "I'm sorry." if int(text[1:]) < 20 else "yes"

    with served(refusing) as target, served(lambda _: "yes") as baseline:
        _, found, _ = run(suite, target.url, "--baseline", f"{baseline.url}#m", "--margin", 20, "--anyway")
    answers = found["suites"][0]["answers"]
    assert answers["refused"]["candidate"]["mean"] == 0.5
    assert answers["refused"]["baseline"]["mean"] == 0
    assert 0.3 < answers["refused"]["difference"]["low"] < 0.5 < answers["refused"]["difference"]["high"] < 0.7
    assert answers["output_tokens"]["candidate"]["mean"] == answers["output_tokens"]["baseline"]["mean"] == 7


@pytest.mark.slow
def test_rate_limits_are_waited_for_and_counted(tmp_path: Path) -> None:
    suite, refused = write_suite(tmp_path, 12), iter([429, 503] + [0] * 1000)
    with served(lambda _: next(refused) or "yes") as target:
        more = ("--baseline", target.url, "--anyway", "--work", tmp_path / "work")
        _, found, stderr = run(suite, target.url, *more)
    assert (found["suites"][0]["n"], found["suites"][0]["failed"]["candidate"]) == (12, 0)
    assert "waiting" in stderr
    assert "status 429" in stderr
    records = json.loads((tmp_path / "work" / "evidence.json").read_text())["items"]["ours"]
    assert sum(row["candidate"][0]["attempts"] for row in records) == 14
    assert {row["candidate"][0]["seed"] for row in records} == {body["seed"] for body in target.bodies}
    assert all(row["candidate"][0]["seed"] == row["baseline"][0]["seed"] for row in records)


@pytest.mark.slow
def test_a_server_that_restarts_in_the_middle(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, 120)
    with served(slow) as first:
        port = first.server.server_address[1]
        process = Running(*command(suite, first.url, "--work", tmp_path / "work", "--json"))
        began = time.monotonic()
        while sum(first.asked.values()) < 20 and time.monotonic() - began < 60:
            time.sleep(0.01)
    with served(slow, port=port) as second:
        done = process.wait()
    found = json.loads(done.stdout)
    assert (done.returncode, found["suites"][0]["n"], found["suites"][0]["failed"]["candidate"]) == (0, 120, 0)
    assert second.asked
