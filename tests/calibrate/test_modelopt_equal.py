"""Calibrated values against the real ModelOpt's on tiny-glm (`record_modelopt.py`)."""

import json
from pathlib import Path

import pytest

from halfbyte.calibrate.calibration import CalibrationResult, calibrate

HERE = Path(__file__).parent
TINY = HERE.parents[1] / "examples/tiny-glm"
GOLDEN = json.loads((HERE / "modelopt_amax.json").read_text())


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CalibrationResult:
    folder = tmp_path_factory.mktemp("calibrate")
    rows = (TINY / "calibration.jsonl").read_text("utf-8").splitlines()[: GOLDEN["rows"]]
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    return calibrate(TINY, [str(folder / "rows.jsonl")], folder / "scales.json", max_length=GOLDEN["max_tokens"])


def test_the_same_tokens(result: CalibrationResult) -> None:
    assert result.documents == GOLDEN["rows"]
    assert result.tokens == sum(GOLDEN["lengths"])


def test_every_input_amax_is_modelopts(result: CalibrationResult) -> None:
    assert len(GOLDEN["input_amax"]) == 10
    for name, amax in GOLDEN["input_amax"].items():
        assert result.scales[name.removesuffix("_input_quantizer")] == pytest.approx(amax, rel=1e-5)


def test_one_outlier_token_sets_the_last_layers_scale(result: CalibrationResult) -> None:
    downs = [result.scales[f"model.layers.{layer}.mlp.experts.down_proj"] for layer in range(1, 6)]
    assert [round(value) for value in downs] == [65, 124, 119, 179, 1484]


def test_everything_was_seen(result: CalibrationResult) -> None:
    assert result.coverage["uncovered"] == []
    assert result.coverage["experts"] == 80
    for layer in result.coverage["layers"]:
        assert sum(layer["histogram"].values()) == 16
