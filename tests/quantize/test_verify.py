"""`verify` finds every kind of difference and names the tensor."""

from pathlib import Path

import numpy as np
import pytest
from small import small_checkpoint, small_tensors, write_checkpoint

from halfbyte.api import quantize, verify
from halfbyte.checkpoint.source import Checkpoint

EXPERT = "model.layers.4.mlp.experts.1"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out")
    return source, tmp_path / "out"


def change(folder: Path, name: str, byte: int, new: bytes) -> None:
    with Checkpoint.open(folder) as checkpoint:
        tensor = checkpoint.tensors[name]
    with open(folder / tensor.shard, "r+b") as file:
        file.seek(tensor.start + byte)
        file.write(new)


@pytest.mark.parametrize("with_evidence", [True, False])
@pytest.mark.parametrize(
    ("name", "byte", "new", "blamed"),
    [
        ("model.norm.weight", 3, b"\x11", "model.norm.weight"),
        ("model.layers.5.eh_proj.weight", 100, b"\x7f", "model.layers.5.eh_proj.weight"),
        (f"{EXPERT}.up_proj.weight_scale", 5, b"\x7f", f"{EXPERT}.up_proj.weight"),
        (f"{EXPERT}.up_proj.weight_scale", 5, b"\x85", f"{EXPERT}.up_proj.weight"),
        (f"{EXPERT}.down_proj.weight_scale_2", 0, np.float32(np.nan).tobytes(), f"{EXPERT}.down_proj.weight"),
        (f"{EXPERT}.down_proj.input_scale", 0, bytes(4), f"{EXPERT}.down_proj.weight"),
        (f"{EXPERT}.gate_proj.weight_scale_2", 0, np.float32(1).tobytes(), f"{EXPERT}.gate_proj.weight"),
        (f"{EXPERT}.down_proj.weight", 0, bytes(512), f"{EXPERT}.down_proj.weight"),
    ],
)
def test_changed_bytes_are_blamed_on_their_tensor(
    pair: tuple[Path, Path], name: str, byte: int, new: bytes, blamed: str, with_evidence: bool
) -> None:
    source, output = pair
    change(output, name, byte, new)
    if not with_evidence:
        (output / "halfbyte.json").unlink()
    result = verify(source, output)
    assert not result.ok
    assert blamed in {found.tensor for found in result.mismatches}
    shard_blamed = any(found.tensor.endswith(".safetensors") for found in result.mismatches)
    assert shard_blamed == with_evidence


def test_one_flipped_code_is_found_with_evidence(pair: tuple[Path, Path]) -> None:
    source, output = pair
    change(output, f"{EXPERT}.gate_proj.weight", 17, b"\x31")
    assert f"{EXPERT}.gate_proj.weight" in {found.tensor for found in verify(source, output).mismatches}


def test_a_changed_side_file_is_found(pair: tuple[Path, Path]) -> None:
    source, output = pair
    (output / "tokenizer.json").write_text('{"x": 1}')
    assert [found.tensor for found in verify(source, output).mismatches] == ["tokenizer.json"]


def test_a_checkpoint_of_another_model_differs_everywhere(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    other = small_checkpoint(tmp_path / "other", seed=5)
    quantize(other, tmp_path / "out")
    result = verify(source, tmp_path / "out")
    assert len(result.mismatches) > 100


def test_missing_and_extra_tensors_are_named(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out")
    config, tensors = small_tensors("GLM-5.2")
    tensors = {n: t for n, t in tensors.items() if not n.startswith("model.layers.5.")}
    without = write_checkpoint(tmp_path / "without", config, tensors)
    assert {found.reason for found in verify(without, tmp_path / "out").mismatches} == {"not in the source"}
    quantize(without, tmp_path / "out-without")
    assert {found.reason for found in verify(source, tmp_path / "out-without").mismatches} == {"missing"}


def test_worst_lists_ten_in_order(pair: tuple[Path, Path]) -> None:
    worst = verify(*pair).worst
    assert len(worst) == 10
    assert [error for _, error in worst] == sorted((error for _, error in worst), reverse=True)
    assert all(name.endswith("_proj.weight") for name, _ in worst)
