"""What cannot be improved: one clear error each, and the folder as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import NUMPY, small_tensors, write_checkpoint, write_safetensors
from stream.models import CHANGES, checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.errors import CheckpointError, OutputError, UnsupportedError, UsageError
from halfbyte.quantize import staging

from .material import copied, evidence


def improve(out: Path, data: str, **options: Any) -> Any:
    source = options.pop("source", None) or checkpoint()
    return quantize(source, out, rounding="gptq", calibrate=[data], improve=True, **options)


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rounding", "max"], "--rounding max has none to give"),
        (["--rounding", "sweep"], "--rounding sweep has none to give"),
        ([], "--rounding max has none to give"),
        (["--rounding", "gptq"], "rounds on data, and there is none"),
        (["--rounding", "gptq", "--calibrate", "DATA", "--input-scale", "headroom"], "--input-scale headroom"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, data: str, sweep: Path, options: list[str], says: str) -> None:
    options = [data if option == "DATA" else option for option in options]
    result = CliRunner().invoke(app, ["quantize", str(checkpoint()), str(sweep), "--improve", *options])
    assert result.exit_code == 2
    assert says in result.stderr


def test_no_finished_checkpoint(tmp_path: Path, data: str, sweep: Path) -> None:
    with pytest.raises(OutputError, match=r"no finished checkpoint with halfbyte\.json"):
        improve(tmp_path / "nothing", data)
    assert not (tmp_path / "nothing").exists()
    out = copied(sweep, tmp_path / "out")
    (out / "halfbyte.json").unlink()
    with pytest.raises(OutputError, match="no finished checkpoint"):
        improve(out, data)
    unfinished = tmp_path / "unfinished"
    (unfinished / ".halfbyte").mkdir(parents=True)
    with pytest.raises(OutputError, match="an unfinished run"):
        improve(unfinished, data)


def refused(out: Path, data: str, kind: type[Exception], says: str, **options: Any) -> None:
    before = state(out)
    with pytest.raises(kind, match=says):
        improve(out, data, **options)
    assert state(out) == before


def test_another_recipe(tmp_path: Path, data: str, sweep: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    refused(out, data, OutputError, "made by recipe nvfp4-routed-experts, not by nvfp4-mlp", recipe="nvfp4-mlp")
    refused(out, data, OutputError, "not by nvfp4-weight-only", recipe="nvfp4-weight-only")


def test_another_source(tmp_path: Path, data: str, sweep: Path) -> None:
    """Of other sizes, or of the same sizes to the byte, as fine-tunes of one model have."""
    out = copied(sweep, tmp_path / "out")
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    other = write_checkpoint(tmp_path / "sizes", config, tensors, shards=1)
    refused(out, data, OutputError, "another source: model-00001-of-00001.safetensors has", source=other)
    tensors["model.norm.weight"] = np.ones(64).astype(NUMPY["BF16"])
    tuned = write_checkpoint(tmp_path / "tuned", config, tensors)
    refused(out, data, OutputError, "another source: .*SHA-256", source=tuned)


def test_a_damaged_checkpoint(tmp_path: Path, data: str, sweep: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    path = sorted(out.glob("*.safetensors"))[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(out, data, CheckpointError, f"{path.name}: SHA-256")
    path.write_bytes(content[:-1])
    refused(out, data, CheckpointError, path.name)
    path.unlink()
    refused(out, data, CheckpointError, path.name)


@pytest.mark.parametrize(
    "change", [{"shards": 3}, {"shards": [{"file": "x"}]}, {"tensors": None}, {"source": {}}, {"roles": "none"}]
)
def test_edited_evidence(tmp_path: Path, data: str, sweep: Path, change: dict[str, Any]) -> None:
    out = copied(sweep, tmp_path / "out")
    (out / "halfbyte.json").write_text(json.dumps(evidence(out) | change))
    refused(out, data, CheckpointError, r"halfbyte\.json: ")


def test_tensors_of_one_expert_in_two_files(tmp_path: Path, data: str, sweep: Path) -> None:
    """Two renames are two steps: between them gate and up could disagree about weight_scale_2."""
    out = copied(sweep, tmp_path / "out")
    name = "model.layers.3.mlp.experts.0.gate_proj.weight_scale_2"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    with Checkpoint.open(out) as opened:
        tensor = opened.tensors[name]
        kept = {}
        for other in opened.tensors.values():
            if other.shard == tensor.shard:
                content = bytearray(other.bytes)
                opened.read_into(other, memoryview(content))
                dtype = NUMPY.get(other.dtype, np.dtype(np.uint8))
                kept[other.name] = np.frombuffer(bytes(content), dtype).reshape(other.shape)
    moved = kept.pop(name)
    write_e4m3(out / tensor.shard, kept)
    write_e4m3(out / "model-moved.safetensors", {name: moved})
    index["weight_map"][name] = "model-moved.safetensors"
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(out, data, UnsupportedError, "cannot be replaced in one step")


def write_e4m3(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """As `write_safetensors`, where bytes named weight_scale are E4M3."""
    write_safetensors(path, tensors)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for name, entry in header.items():
        if name.endswith(".weight_scale"):
            entry["dtype"] = "F8_E4M3"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def test_a_disk_without_room(tmp_path: Path, data: str, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = copied(sweep, tmp_path / "out")
    monkeypatch.setattr(staging, "SPARE_BYTES", 10**18)
    refused(out, data, OutputError, "the disk has")


def test_bad_data(tmp_path: Path, data: str, sweep: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    result = CliRunner().invoke(
        app,
        ["quantize", str(checkpoint()), str(out), "--improve", "--rounding", "gptq", "--calibrate", "no-such.jsonl"],
    )
    assert result.exit_code == 1
    assert "no-such.jsonl" in result.stderr
    assert UsageError.exit_code == 2
    assert not (out / ".halfbyte").exists()
