"""The second lab animal is what its README says, and takes the whole road."""

import json
from pathlib import Path

import pytest

from halfbyte.api import gate, inspect, quantize, verify

TINY = Path(__file__).resolve().parents[2] / "examples/tiny-qwen"


def test_it_is_what_its_readme_says() -> None:
    found = inspect(TINY)
    assert found.model_type == "qwen3_moe"
    assert found.parameters == 13_529_088


def test_the_road(tmp_path: Path) -> None:
    quantize(TINY, tmp_path / "out")
    assert verify(TINY, tmp_path / "out").ok
    assert gate(tmp_path / "out").verdict == "pass"


def test_recorded_outcomes_give_the_recorded_accuracies() -> None:
    recorded = json.loads((TINY / "results.json").read_text())
    for task, outcomes in recorded["items"].items():
        lines = (TINY.parent / "tiny-glm/tasks" / f"{task}.jsonl").read_text("utf-8").splitlines()
        assert len(outcomes) == len(lines)
        assert recorded["accuracy"][task] == pytest.approx(outcomes.count("1") / len(lines), abs=5e-5)
