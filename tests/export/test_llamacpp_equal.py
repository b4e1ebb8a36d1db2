"""Every tensor and every key equals what llama.cpp's own converter wrote (hashes by record_llamacpp.py)."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from export.checkpoints import CASES
from export.record_llamacpp import fingerprint
from halfbyte.export import export, verify_gguf

RECORDED: dict[str, Any] = json.loads((Path(__file__).with_name("llamacpp.json")).read_text())["cases"]
STATED = {"GLM-4.7-Flash": {"deepseek2.expert_gating_func"}}
"""What we say and the converter leaves out: llama.cpp guesses it by the published sizes (src/models/deepseek2.cpp)."""


@pytest.mark.parametrize("case", CASES)
def test_tensors_and_metadata_equal_the_converters(case: str, tmp_path: Path) -> None:
    checkpoint, out = CASES[case](tmp_path / case), tmp_path / "ours.gguf"
    export(checkpoint, out)
    ours, theirs = fingerprint(out, gguf), RECORDED[case]
    assert set(ours["keys"]) == set(theirs["keys"]) | STATED.get(case, set())
    assert {name for name, value in theirs["keys"].items() if value != ours["keys"][name]} == set()
    assert set(ours["tensors"]) == set(theirs["tensors"])
    assert {name: value for name, value in ours["tensors"].items() if value != theirs["tensors"][name]} == {}
    assert verify_gguf(checkpoint, out).problems == []


def test_every_recorded_case_is_tested() -> None:
    assert set(RECORDED) == set(CASES)
