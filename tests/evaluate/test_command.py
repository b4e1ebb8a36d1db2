"""`halfbyte evaluate --from --against`, as programs call it."""

import json
import subprocess
from pathlib import Path

import pytest

from .commands import halfbyte
from .harnesses import folders

RIGHT = [[float(i % 5 != 0)] for i in range(200)]
WORSE = [[float(i % 2 != 0)] for i in range(200)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return halfbyte("evaluate", *arguments)


@pytest.mark.parametrize(
    ("scores", "margin", "verdict", "code"),
    [(RIGHT, 2, "PASS", 0), (WORSE, 2, "FAIL", 1), (RIGHT, 1, "INCONCLUSIVE", 3)],
)
def test_verdict_and_exit_code(scores: folders.Scores, margin: int, verdict: str, code: int, tmp_path: Path) -> None:
    arms = folders.nemo(tmp_path / "a", scores), folders.nemo(tmp_path / "b", RIGHT)
    done = run("--from", arms[0], "--against", arms[1], "--margin", margin, "--json")
    said = json.loads(done.stdout)
    assert (said["verdict"], done.returncode, done.stderr) == (verdict, code, "")
    assert said["suites"][0].keys() >= {
        *("name", "verdict", "unadjusted", "n", "candidate", "baseline", "difference", "interval", "margin"),
        *("truncated", "failed", "bca"),
    }
    assert said["pooled"].keys() == {"difference", "interval", "verdict"}
    assert said["conditions"]["gpqa"]["temperature"] == 1.0
    assert Path(said["log"]).exists()
    shown = run("--from", arms[0], "--against", arms[1], "--margin", margin)
    assert (shown.returncode, max(len(line) for line in shown.stdout.splitlines()) <= 100) == (code, True)
    assert verdict in shown.stdout


def test_few_clusters_are_told(tmp_path: Path) -> None:
    arms = folders.nemo(tmp_path / "a", RIGHT[:100]), folders.nemo(tmp_path / "b", RIGHT[:100])
    for more, told in ((("--cluster", "passage"), True), ((), False)):
        words = ("--from", arms[0], "--against", arms[1], "--margin", 20, *more)
        warning = json.loads(run(*words, "--json").stdout)["suites"][0]["warning"]
        assert (warning is not None, "25 clusters are few" in run(*words).stdout) == (told, told)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    arms = folders.nemo(tmp_path / "a", RIGHT, temperature=0.5), folders.nemo(tmp_path / "b", RIGHT)
    done = run("--from", arms[0], "--against", arms[1], "--margin", 2, "--json")
    assert done.returncode == 1
    assert "temperature" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize(
    "arguments", [["--from", "x"], ["--against", "x"], [], ["--from", "x", "--against", "y", "--power"]]
)
def test_usage(arguments: list[str]) -> None:
    done = run(*arguments, "--json")
    assert done.returncode == 2
    assert "--from" in json.loads(done.stdout)["error"]["message"] + str(json.loads(done.stdout)["error"]["hint"])
