"""Damage to what a killed calibrate or compare left in --work: the same numbers, or one line that says what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare.models import pair
from damage import check_every
from typer.testing import CliRunner

from halfbyte.cli.main import app
from halfbyte.stream.executor import Streamed
from stream.models import checkpoint

EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("\n".join(json.dumps({"input_ids": random.integers(0, 96, 40).tolist()}) for _ in range(4)))
    return path


def stopped(words: list[str], steps: int) -> None:
    """The command, ended by Ctrl-C after so many layers (of all models together)."""
    real, count = Streamed.step, 0

    def step(self: Streamed, *arguments: Any) -> int:
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Streamed, "step", step)
        assert CliRunner().invoke(app, words).exit_code == 130


@pytest.mark.parametrize("where", ["memory", "file"])
@EVERY
def test_calibrate(every: bool, where: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = [] if where == "memory" else ["--memory-budget", "10GB"]
    if where == "file":
        monkeypatch.setattr("halfbyte.stream.budget._placed", lambda *_: [])

    def words(work: Path) -> list[str]:
        scales = work.parent / f"{work.name}.json"
        common = ["--data", str(data), "-o", str(scales), "--overwrite", "--work", str(work), *budget]
        return ["calibrate", str(checkpoint()), *common]

    def result(work: Path, printed: str) -> object:
        return json.loads((work.parent / f"{work.name}.json").read_text())

    stopped(words(tmp_path / "left"), 4)
    check_every(tmp_path / "left", tmp_path / "out", words, result, every)


@EVERY
def test_compare(every: bool, data: Path, tmp_path: Path) -> None:
    base, candidate = pair(tmp_path / "pair")

    def words(work: Path) -> list[str]:
        return ["compare", str(base), str(candidate), "--data", str(data), "--work", str(work), "--json"]

    def result(work: Path, printed: str) -> object:
        found = json.loads(printed)
        work.mkdir(exist_ok=True)
        return {key: value for key, value in found.items() if key not in ("seconds", "peak_rss_bytes")}

    stopped(words(tmp_path / "left"), 7)
    check_every(tmp_path / "left", tmp_path / "out", words, result, every)
