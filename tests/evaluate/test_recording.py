"""The verdict goes into the candidate's evidence and card, and the gate asks for it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import small_checkpoint

from halfbyte.api import quantize
from halfbyte.recipes.policy import Policy

from .commands import halfbyte
from .harnesses import folders

RIGHT = [[float(i % 5 != 0)] for i in range(200)]
WORSE = [[float(i % 2 != 0)] for i in range(200)]


def run(command: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    as_json = ["--format", "json"] if command == "gate" else ["--json"]
    done = halfbyte(command, *arguments, *as_json)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    quantize(small_checkpoint(folder / "source"), folder / "packed")
    return folder / "packed"


def gate(folder: Path, verdict: str) -> list[str]:
    policy = folder.parent / "policy.yaml"
    wanted = {"name": "ours", "evidence": [{"kind": "evaluate", "suite": "gpqa", "verdict": verdict}]}
    policy.write_text(yaml.safe_dump(yaml.safe_load(Policy.shipped()["default"].read_text("utf-8")) | wanted))
    _, found = run("gate", folder, "--policy", policy)
    return [one["rule"] for one in found["findings"] if one["rule"].startswith("evidence.")]


def test_the_gate_reads_what_evaluate_wrote(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    shutil.copytree(checkpoint, folder)
    arms = folders.nemo(tmp_path / "a", RIGHT), folders.nemo(tmp_path / "b", RIGHT)
    assert gate(folder, "PASS") == ["evidence.exists"]
    judged = ("--from", arms[0], "--against", arms[1], "--margin", 2, "--record", folder)
    code, _ = run("evaluate", *judged)
    assert code == 0
    assert gate(folder, "PASS") == []
    assert "| gpqa | 200 | +0.00 |" in (folder / "README.md").read_text()
    row = json.loads((folder / "halfbyte.json").read_text())["evaluate"]
    assert [(one["suite"], one["verdict"], one["margin"], one["n"]) for one in row] == [("gpqa", "PASS", 2.0, 200)]
    worse = folders.nemo(tmp_path / "worse", WORSE)
    code, _ = run("evaluate", "--from", worse, "--against", arms[1], "--margin", 2, "--record", folder)
    assert code == 1
    assert gate(folder, "PASS") == ["evidence.verdict"], "the later verdict takes the place of the earlier"
    (folder / "README.md").write_text("mine")
    run("evaluate", *judged)
    assert (folder / "README.md").read_text() == "mine"


def test_a_folder_without_evidence_is_an_error(tmp_path: Path) -> None:
    arm = folders.nemo(tmp_path / "a", RIGHT)
    code, found = run("evaluate", "--from", arm, "--against", arm, "--margin", 2, "--record", tmp_path)
    assert (code, "halfbyte.json" in found["error"]["message"]) == (1, True)
