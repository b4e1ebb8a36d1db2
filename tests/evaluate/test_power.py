"""What a suite can decide is said before it is run."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from halfbyte.evaluate.power import item_variance, power

from .commands import halfbyte


def power_said(*arguments: object) -> subprocess.CompletedProcess[str]:
    return halfbyte("evaluate", "--power", *arguments)


def items(folder: Path, count: int) -> Path:
    path = folder / "mine.jsonl"
    rows = [{"id": f"i{n}", "prompt": "?", "reference": "!", "checker": "exact"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_policy_of_198_items_and_one_point_cannot_pass_and_says_so() -> None:
    done = power_said("--suite", "glm-5.2", "--margin", "1", "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["decidable"] is False
    assert document["assumptions"]["correlation"] == 0.8
    gpqa = document["suites"][0]
    variance = 2 * 0.8952 * 0.1048 * 0.2
    assert (gpqa["name"], gpqa["items"], gpqa["repeats"]) == ("gpqa-diamond", 198, 1)
    assert gpqa["accuracy"] == pytest.approx(89.52)
    assert gpqa["variance"] == pytest.approx(variance)
    assert gpqa["smallest_margin"] == pytest.approx(100 * 2.4865 * math.sqrt(variance / 198), rel=1e-4)
    assert gpqa["smallest_drop"] == pytest.approx(100 * 2.8016 * math.sqrt(variance / 198), rel=1e-4)
    assert gpqa["items_needed"] == math.ceil(2.4865**2 * variance / 0.01**2)
    assert (gpqa["gpu_hours"], gpqa["usd"]) == (None, None)
    assert power_said("--margin", "1", "--anyway").returncode == 0
    shown = power_said("--margin", "1").stdout
    assert "cannot be decided" in shown
    assert max(map(len, shown.splitlines())) <= 140


def test_discordance_instead_of_a_correlation(tmp_path: Path) -> None:
    """platform figures: a margin of 1 point with discordance 5, 10, 20 % wants 3,100, 6,200, 12,400 items."""
    found = [power(str(items(tmp_path, 10)), margin=1, discordance=d).suites[0].items_needed for d in (0.05, 0.1, 0.2)]
    assert found == [3092, 6183, 12366]


def test_repeats_shrink_the_variance_to_no_less_than_half() -> None:
    single = item_variance(0.7, 1, 0.8, None)
    shrunk = [item_variance(0.7, epochs, 0.8, None) for epochs in (2, 8, 1000)]
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[0] == pytest.approx(0.75 * single)
    assert single / 2 <= shrunk[-1] < 0.51 * single


def test_a_file_of_items(tmp_path: Path) -> None:
    document = json.loads(power_said("--suite", items(tmp_path, 5000), "--margin", "2", "--json").stdout)
    assert document["decidable"] is True
    assert document["suites"][0] | {"name": "mine", "items": 5000, "accuracy": 50.0} == document["suites"][0]
    assert document["assumptions"]["accuracy_assumed"] == ["mine"]
    few = json.loads(power_said("--suite", items(tmp_path, 5000), "--limit", 50, "--margin", "2", "--json").stdout)
    assert (few["suites"][0]["items"], few["decidable"]) == (50, False)


def test_hours_and_money_follow_from_a_plan(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    tiny = Path(__file__).parents[2] / "examples/tiny-glm"
    planned = json.loads(halfbyte("plan", tiny, "--gpu", "b200", "--gpus", 2, "--price", 4, "--json").stdout)
    plan.write_text(json.dumps(planned))
    suite = json.loads(power_said("--suite", "tiny", "--margin", "9", "--epochs", 4, "--plan", plan, "--json").stdout)
    code = suite["suites"][0]
    hours = 2 * 400 * 4 * 2 / planned["throughput"]["requests_per_s"] / 3600
    assert code["gpu_hours"] == pytest.approx(hours)
    assert code["usd"] == pytest.approx(4 * hours)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--margin", "0"], 2, "--margin"),
        (["--margin", "nan"], 2, "--margin"),
        (["--correlation", "1"], 2, "--correlation"),
        (["--discordance", "0"], 2, "--discordance"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--limit", "-1"], 2, "--limit"),
        (["--suite", "gml"], 2, "no suite is called"),
        (["--suite", "nowhere.jsonl"], 1, "cannot be opened"),
        (["--plan", "nowhere.json"], 2, "missing"),
    ],
)
def test_what_cannot_be_is_one_error(arguments: list[str], code: int, words: str) -> None:
    done = power_said(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


ITEM: dict[str, Any] = {"id": "a", "prompt": "?", "reference": 1, "checker": "numeric"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "holds no items"),
        (["{"], ":1: not valid JSON"),
        (["[]"], ":1: is no JSON object"),
        ([ITEM, ITEM], ":2: id 'a' is that of line 1 too"),
        ([ITEM | {"id": ""}], "has no id"),
        ([ITEM | {"messages": []}], "either prompt (text) or messages"),
        ([ITEM | {"checker": "exec"}], "checker is 'exec'"),
        ([{"id": "a", "prompt": "?", "checker": "exact"}], "has no reference"),
    ],
)
def test_items_that_cannot_be(lines: list[Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    done = power_said("--suite", path, "--margin", 5)
    assert done.returncode == 1
    assert words in done.stderr
