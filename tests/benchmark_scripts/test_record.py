"""Each row of results says by which command, at which commit and on which machine it was made."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_row_says_how_to_make_it_again(tmp_path: Path) -> None:
    """A copy of the one function that writes rows, in a repository of its own."""
    folder = tmp_path / "benchmarks"
    (folder / "gate").mkdir(parents=True)
    (folder / "table.py").write_bytes((ROOT / "benchmarks/table.py").read_bytes())
    (folder / "gate/speed.py").write_text("from benchmarks.table import record\nrecord('speed', {'seconds': 1})\n")
    for words in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "benchmarks.gate.speed", "--runs", "5", "a b"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    [row] = map(json.loads, (folder / "results/speed.jsonl").read_text().splitlines())
    assert row["command"] == "python -m benchmarks.gate.speed --runs 5 'a b'"
    assert len(row["commit"]) >= 7
    assert row["cores"] >= 1
    assert row["processor"] is not None
    assert row["seconds"] == 1
