"""A published table, judged from its means and item counts."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.api import verdict
from halfbyte.errors import DataError

from .commands import halfbyte

GLM = [
    {"name": "GPQA diamond", "n": 198, "baseline": 89.52, "candidate": 89.39, "repeats": 8},
    {"name": "SciCode", "n": 338, "baseline": 49.85, "candidate": 49.04},
    {"name": "IFBench", "n": 294, "baseline": 74.95, "candidate": 75.81},
    {"name": "AA-LCR", "n": 100, "baseline": 69.38, "candidate": 70.13},
    {"name": "tau2 telecom", "n": 114, "baseline": 97.9, "candidate": 98.25},
]


def card(folder: Path, suites: Any = GLM, **more: Any) -> Path:
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump({"suites": suites} | more))
    return path


def judged(*arguments: object) -> subprocess.CompletedProcess[str]:
    return halfbyte("verdict", *arguments)


def test_none_of_the_five_published_differences_is_resolvable(tmp_path: Path) -> None:
    done = judged(card(tmp_path), "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["verdict"] == "none-resolvable"
    found = document["suites"]
    assert [round(suite["standard_error"], 2) for suite in found] == [3.09, 3.85, 3.55, 6.5, 1.82]
    assert [round(suite["z"], 2) for suite in found] == [-0.04, -0.21, 0.24, 0.12, 0.19]
    assert not any(suite["resolvable"] for suite in found)
    assert list(found[0]) == [
        "name", "n", "difference", "standard_error", "z", "resolvable", "smallest_detectable", "ruled_out",
    ]  # fmt: skip


def test_pairing_shrinks_the_errors_as_assumed(tmp_path: Path) -> None:
    found = verdict(card(tmp_path, correlation=0.8)).suites
    assert [round(suite.standard_error, 2) for suite in found] == [1.38, 1.72, 1.59, 2.9, 0.81]
    assert [round(suite.smallest_detectable, 1) for suite in found] == [3.9, 4.8, 4.5, 8.1, 2.3]
    assert [round(suite.ruled_out, 1) for suite in found] == [2.4, 3.6, 1.8, 4.0, 1.0]


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([(90, 50)], "drop"), ([(50, 90)], "gain"), ([(90, 50), (50, 90)], "mixed"), ([(90, 50), (70, 70)], "drop"),
        ([(0, 0)], "none-resolvable"), ([(100, 100)], "none-resolvable"), ([(0, 100)], "gain"),
    ],
)  # fmt: skip
def test_verdicts(pairs: list[tuple[int, int]], wanted: str, tmp_path: Path) -> None:
    suites = [{"name": f"s{i}", "n": 100, "baseline": a, "candidate": b} for i, (a, b) in enumerate(pairs)]
    found = verdict(card(tmp_path, suites))
    assert found.verdict == wanted
    assert all(suite.standard_error > 0 for suite in found.suites)


def test_repeats_never_make_items(tmp_path: Path) -> None:
    once = verdict(card(tmp_path, [GLM[0] | {"repeats": 1}]))
    assert once == verdict(card(tmp_path, [GLM[0] | {"repeats": 64}]))


ROW = {"name": "a", "n": 10, "baseline": 50, "candidate": 50}


@pytest.mark.parametrize(
    ("suites", "more", "words"),
    [
        ([], {}, "suites"),
        ([ROW | {"n": 0}], {}, "n"),
        ([ROW | {"n": 2.5}], {}, "n"),
        ([ROW | {"n": True}], {}, "n"),
        ([ROW | {"baseline": 100.1}], {}, "baseline"),
        ([ROW | {"candidate": float("nan")}], {}, "candidate"),
        ([ROW | {"candidate": "50"}], {}, "candidate"),
        ([ROW | {"repeats": 0}], {}, "repeats"),
        ([ROW | {"itmes": 3}], {}, "unknown setting"),
        ([ROW, ROW], {}, "twice"),
        ([{"name": "a", "n": 3, "baseline": 5}], {}, "candidate"),
        ([ROW], {"correlation": 1}, "correlation"),
        ([ROW], {"correlation": -0.1}, "correlation"),
        ([ROW], {"corelation": 0.5}, "did you mean 'correlation'"),
        ("many", {}, "suites"),
    ],
)
def test_a_card_that_cannot_be_is_one_error(suites: Any, more: dict[str, Any], words: str, tmp_path: Path) -> None:
    done = judged(card(tmp_path, suites, **more), "--json")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "bad-data"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no card and no file"):
        verdict(tmp_path / "nowhere.yaml")


def test_the_table_fits_a_terminal(tmp_path: Path) -> None:
    long = [suite | {"name": f"{suite['name']} with a name that goes on and on and on and on and on"} for suite in GLM]
    huge = [{"name": "a" * 99, "n": 10**9, "baseline": 100, "candidate": 0}, *GLM]
    for suites in (GLM, long, huge):
        done = judged(card(tmp_path, suites))
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 100
        assert "told from chance" in done.stdout
