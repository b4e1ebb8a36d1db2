"""`--input-scale`: constants and calibrated files, most specific name first."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import small_checkpoint, write_safetensors

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import InputScaleError

EXPERTS = "model.layers.3.mlp.experts"


def written(tmp_path: Path, spec: Any) -> dict[str, float]:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out", input_scale=spec)
    scales = {}
    with Checkpoint.open(tmp_path / "out") as output:
        for name, tensor in output.tensors.items():
            if name.endswith(".input_scale"):
                buffer = bytearray(4)
                output.read_into(tensor, memoryview(buffer))
                scales[name.removesuffix(".input_scale")] = float(np.frombuffer(buffer, np.float32)[0])
    assert len(scales) == 2 * 4 * 3
    return scales


def test_the_default_is_one_everywhere(tmp_path: Path) -> None:
    assert set(written(tmp_path, "1").values()) == {1.0}


def test_a_file_of_amax_most_specific_name_first(tmp_path: Path) -> None:
    values = {
        f"{EXPERTS}.2.down_proj": 26.88,
        f"{EXPERTS}.down_proj": 53.76,
        f"{EXPERTS}.gate_up_proj": 5.376,
        "4": {"mlp": {"experts": 2.688}},
    }
    (tmp_path / "amax.json").write_text(json.dumps(values))
    scales = written(tmp_path, tmp_path / "amax.json")
    assert scales[f"{EXPERTS}.2.down_proj"] == pytest.approx(0.01)
    assert scales[f"{EXPERTS}.1.down_proj"] == pytest.approx(0.02)
    assert scales[f"{EXPERTS}.1.gate_proj"] == scales[f"{EXPERTS}.3.up_proj"] == pytest.approx(0.002)
    assert scales["model.layers.4.mlp.experts.0.down_proj"] == pytest.approx(0.001)


def test_gate_and_up_get_the_larger_of_their_values(tmp_path: Path) -> None:
    values = {"model.layers.3": 1.0, "model.layers.4": 1.0}
    values |= {f"{EXPERTS}.0.gate_proj": 2688.0, f"{EXPERTS}.0.up_proj": 5376.0}
    (tmp_path / "amax.json").write_text(json.dumps(values))
    scales = written(tmp_path, tmp_path / "amax.json")
    assert scales[f"{EXPERTS}.0.gate_proj"] == scales[f"{EXPERTS}.0.up_proj"] == 2.0


def test_scales_of_a_modelopt_checkpoint_are_taken_as_they_are(tmp_path: Path) -> None:
    names = [
        f"model.layers.{layer}.mlp.experts.{e}.{p}_proj"
        for layer in (3, 4)
        for e in range(4)
        for p in ("gate", "up", "down")
    ]
    write_safetensors(tmp_path / "scales.safetensors", {f"{n}.input_scale": np.array(0.25, np.float32) for n in names})
    assert set(written(tmp_path, tmp_path / "scales.safetensors").values()) == {0.25}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e999"])
def test_constants_must_be_finite_and_positive(tmp_path: Path, value: str) -> None:
    source = small_checkpoint(tmp_path / "in")
    with pytest.raises(InputScaleError, match="above 0"):
        quantize(source, tmp_path / "out", input_scale=value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"model.layers.3": 1}', "no value for model.layers.4"),
        ('{"3": 1, "4": -1}', "above 0"),
        ('{"3": 1, "4": "much"}', "wanted a number"),
        ("[1]", "wanted a number"),
        ("{", "not valid JSON"),
        ("{}", "holds no values"),
    ],
)
def test_files_are_checked_before_any_work(tmp_path: Path, content: str, says: str) -> None:
    source = small_checkpoint(tmp_path / "in")
    (tmp_path / "amax.json").write_text(content)
    with pytest.raises(InputScaleError, match=says):
        quantize(source, tmp_path / "out", input_scale=tmp_path / "amax.json")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_says_what_was_wanted(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    with pytest.raises(InputScaleError, match="cannot be read") as caught:
        quantize(source, tmp_path / "out", input_scale="nowhere.json")
    assert "number" in (caught.value.hint or "")
