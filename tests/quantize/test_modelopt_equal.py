"""The quantized tiny model against what ModelOpt 0.47 itself exported (hashes recorded by tests/golden/record.py)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.reference import Encoded

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/tiny_glm_modelopt.json").read_text())


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-glm quantized with the activation scales that ModelOpt calibrated."""
    folder = tmp_path_factory.mktemp("tiny")
    scales = {f"{m}.input_scale": float(_float(g["input_scale"])) for m, g in GOLDEN["modules"].items()}
    (folder / "scales.json").write_text(json.dumps(scales))
    quantize(ROOT / "examples/tiny-glm", folder / "out", input_scale=folder / "scales.json")
    return folder / "out"


def _float(bits: str) -> np.float32:
    return np.float32(np.array([int(bits, 16)], np.uint32).view(np.float32)[0])


def _bytes(checkpoint: Checkpoint, name: str) -> bytes:
    tensor = checkpoint.tensors[name]
    buffer = bytearray(tensor.bytes)
    checkpoint.read_into(tensor, memoryview(buffer))
    return bytes(buffer)


def test_every_packed_tensor_has_modelopts_bytes(output: Path) -> None:
    assert len(GOLDEN["modules"]) == 240
    with Checkpoint.open(output) as ours:
        for module, golden in GOLDEN["modules"].items():
            assert hashlib.sha256(_bytes(ours, f"{module}.weight")).hexdigest() == golden["weight_sha256"]
            assert hashlib.sha256(_bytes(ours, f"{module}.weight_scale")).hexdigest() == golden["weight_scale_sha256"]
            for scalar in ("weight_scale_2", "input_scale"):
                assert _bytes(ours, f"{module}.{scalar}") == _float(golden[scalar]).tobytes(), (module, scalar)


def test_decoded_weights_equal_modelopts_dequantizer(output: Path) -> None:
    with Checkpoint.open(output) as ours:
        for module, golden in GOLDEN["modules"].items():
            rows, columns = map(int, golden["shape"].split("x"))
            codes = np.frombuffer(_bytes(ours, f"{module}.weight"), np.uint8).reshape(rows, columns // 2)
            scales = np.frombuffer(_bytes(ours, f"{module}.weight_scale"), np.uint8).reshape(rows, columns // 16)
            scale_2 = np.frombuffer(_bytes(ours, f"{module}.weight_scale_2"), np.float32)[0]
            values = decode(Encoded(codes, scales, scale_2))
            assert hashlib.sha256(values.tobytes()).hexdigest() == golden["dequant_f32_sha256"], module


def test_metadata_says_what_modelopts_says(output: Path) -> None:
    ours = json.loads((output / "hf_quant_config.json").read_text())
    theirs: dict[str, Any] = GOLDEN["hf_quant_config"]
    assert ours["quantization"]["quant_algo"] == theirs["quantization"]["quant_algo"]
    assert ours["quantization"]["group_size"] == theirs["quantization"]["group_size"]
    respelled = {
        entry.replace("model.layers.0*", "model.layers.0.*") for entry in GOLDEN["quantization_config"]["ignore"]
    }
    assert set(ours["quantization"]["exclude_modules"]) == respelled
    flat = json.loads((output / "config.json").read_text())["quantization_config"]
    assert set(flat["ignore"]) == respelled
    assert flat["quant_method"] == "modelopt"
    assert set(GOLDEN["quantization_config"]) <= set(flat)
