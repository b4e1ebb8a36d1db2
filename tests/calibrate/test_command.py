"""`halfbyte calibrate` and `quantize --calibrate` as users run them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.cli.many import _spelled_out

RUN = CliRunner()
EXPERTS = "model.layers.3.mlp.experts"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = [json.dumps({"input_ids": random.integers(0, 96, 30).tolist(), "language": "en"}) for _ in range(12)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return tmp_path / "data.jsonl"


def calibrate(*words: object) -> dict[str, Any]:
    result = RUN.invoke(app, ["calibrate", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def scales_of(folder: Path) -> dict[str, float]:
    found = {}
    with Checkpoint.open(folder) as source:
        for name, tensor in source.tensors.items():
            if name.endswith(".input_scale"):
                buffer = bytearray(4)
                source.read_into(tensor, memoryview(buffer))
                found[name.removesuffix(".input_scale")] = float(np.frombuffer(buffer, np.float32)[0])
    return found


def test_the_scales_file_is_what_quantize_reads(tmp_path: Path, data: Path) -> None:
    scales = tmp_path / "scales.json"
    document = calibrate(checkpoint(), "--data", data, "-o", scales)
    written = json.loads(scales.read_text())
    evidence = written.pop("halfbyte")
    assert written == document["scales"]
    assert evidence["data"]["tokens"] == 360
    assert str(tmp_path) not in scales.read_text()
    quantize(checkpoint(), tmp_path / "out", recipe="nvfp4-mlp", input_scale=scales)
    stored = scales_of(tmp_path / "out")
    for expert in range(4):
        for projection in ("gate_proj", "up_proj"):
            wanted = np.float32(written[f"{EXPERTS}.gate_up_proj"]) / np.float32(2688)
            assert stored[f"{EXPERTS}.{expert}.{projection}"] == wanted
    shared = np.float32(written["model.layers.4.mlp.shared_experts.down_proj"]) / np.float32(2688)
    assert stored["model.layers.4.mlp.shared_experts.down_proj"] == shared
    kept = json.loads((tmp_path / "out/halfbyte.json").read_text())["input_scale"]["calibration"]
    assert kept == evidence


def test_layer_values_are_the_largest_of_the_experts(tmp_path: Path, data: Path) -> None:
    document = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "s.json", "--per-expert", "--min-tokens", 5)
    experts = json.loads((tmp_path / "s.json").read_text())["halfbyte"]["experts"]["3"]
    assert document["scales"][f"{EXPERTS}.down_proj"] == max(experts["down_proj"]["amax"])
    assert sum(experts["tokens"]) == 360 * 2
    for expert, count in enumerate(experts["tokens"]):
        own = document["scales"].get(f"{EXPERTS}.{expert}.down_proj")
        assert own == (experts["down_proj"]["amax"][expert] if count >= 5 else None)
        assert (expert in experts["inherited"]) == (count < 5)


def test_thin_experts_are_reported_and_inherit(tmp_path: Path, data: Path) -> None:
    document = calibrate(
        checkpoint(), "--data", data, "-o", tmp_path / "s.json", "--min-tokens", 100000, "--tokens", 60
    )
    assert document["tokens"] == 60
    assert len(document["coverage"]["uncovered"]) == 8
    assert "8 of 8 experts" in document["warnings"][0]
    quantize(checkpoint(), tmp_path / "out", input_scale=tmp_path / "s.json")  # every expert has a scale all the same
    shown = RUN.invoke(
        app,
        ["calibrate", str(checkpoint()), "--data", str(data), "-o", str(tmp_path / "t.json"), "--min-tokens", "9999"],
    )
    assert "uncovered: layer 3 expert 0" in shown.stdout
    assert "peak memory" in shown.stdout


def test_headroom_leaves_room_and_says_what_every_rule_would_do(tmp_path: Path, data: Path) -> None:
    most = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "max.json")["scales"]
    room = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "room.json", "--amax", "headroom")
    assert room["amax"] == "headroom"
    assert room["scales"].keys() == most.keys()
    assert all(room["scales"][name] >= 2 * most[name] for name in most)
    files = [json.loads((tmp_path / name).read_text())["halfbyte"]["inputs"] for name in ("max.json", "room.json")]
    assert files[0].keys() == files[1].keys() == most.keys()
    for name, one in files[0].items():
        assert one["rules"]["max"] == files[1][name]["rules"]["max"]
        assert one["rules"]["headroom"] == files[1][name]["rules"]["headroom"]
        assert one["headroom"] == 1
        assert files[1][name]["rules"]["written"]["calibration"]["added_error"] <= 0.01
        for shares in one["rules"].values():
            for part in ("calibration", "held_out"):
                assert set(shares[part]) == {"clipped", "subnormal", "vanished", "subnormal_energy", "added_error"}
    words = ["calibrate", str(checkpoint()), "--data", str(data), "-o", str(tmp_path / "x.json"), "--per-expert"]
    assert RUN.invoke(app, [*words, "--amax", "headroom"]).exit_code == 2
    assert not (tmp_path / "x.json").exists()


def test_too_few_documents_hold_none_out(tmp_path: Path, data: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(data.read_text().splitlines()[:7]))
    calibrate(checkpoint(), "--data", few, "-o", tmp_path / "s.json")
    evidence = json.loads((tmp_path / "s.json").read_text())["halfbyte"]
    assert evidence["held_out"] == {"documents": 0}
    rules = evidence["inputs"][f"{EXPERTS}.down_proj"]["rules"]
    assert all(rule["held_out"] is None and rule["calibration"] is not None for rule in rules.values())


@pytest.mark.parametrize("amax", ["percentile:99", "mse"])
def test_other_rules_give_no_more_than_the_largest(tmp_path: Path, data: Path, amax: str) -> None:
    most = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "max.json")["scales"]
    less = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "other.json", "--amax", amax)["scales"]
    assert less.keys() == most.keys()
    assert all(0 < less[name] <= most[name] for name in most)
    assert amax == "mse" or any(less[name] < most[name] for name in most)


def test_quantize_calibrates_first(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    words = ["quantize", str(checkpoint()), str(out), "--calibrate", str(data), str(data), "--json"]
    words += ["--input-scale", "max"]
    result = RUN.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["input_scale"] == "calibrated on 720 tokens of 24 documents, max"
    apart = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "s.json")["scales"]
    assert scales_of(out)[f"{EXPERTS}.2.down_proj"] == np.float32(apart[f"{EXPERTS}.down_proj"]) / np.float32(2688)
    assert not (out / ".halfbyte").exists()


def test_calibrating_twice_in_a_work_folder_is_done_at_once(tmp_path: Path, data: Path) -> None:
    first = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "1.json", "--work", tmp_path / "work")
    again = calibrate(checkpoint(), "--data", data, "-o", tmp_path / "2.json", "--work", tmp_path / "work")
    assert (first["resumed_layers"], again["resumed_layers"]) == (0, 5)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--amax", "least"], 2, "--amax"),
        (["--min-tokens", "0"], 2, "--min-tokens"),
        (["--memory-budget", "much"], 2, "--memory-budget"),
        (["--memory-budget", "1MB"], 2, "--memory-budget"),
        (["--device", "tpu"], 2, "cpu or cuda"),
        (["--pack"], 2, "--max-length"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, data: Path, words: list[str], code: int, message: str) -> None:
    command = ["calibrate", str(checkpoint()), "--data", str(data), "-o", str(tmp_path / "s.json"), *words, "--json"]
    result = RUN.invoke(app, command)
    assert result.exit_code == code
    error = json.loads(result.stdout)["error"]
    assert message in f"{error['message']} {error['hint']}"
    assert not (tmp_path / "s.json").exists()


def test_an_existing_file_is_not_overwritten(tmp_path: Path, data: Path) -> None:
    (tmp_path / "s.json").write_text("mine")
    words = ["calibrate", str(checkpoint()), "--data", str(data), "-o", str(tmp_path / "s.json")]
    assert RUN.invoke(app, words).exit_code == 1
    assert (tmp_path / "s.json").read_text() == "mine"
    assert RUN.invoke(app, [*words, "--overwrite"]).exit_code == 0


def test_a_model_that_overflows_is_named(tmp_path: Path, data: Path) -> None:
    from small import small_tensors, write_checkpoint
    from stream.models import CHANGES

    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    for name in tensors:
        if name.startswith("model.layers.3.mlp.experts.") and "down" not in name:
            tensors[name] = (tensors[name].astype(np.float32) * 1e25).astype(tensors[name].dtype)
    folder = write_checkpoint(tmp_path / "model", config, tensors)
    words = ["calibrate", str(folder), "--data", str(data), "-o", str(tmp_path / "s.json"), "--json"]
    result = RUN.invoke(app, words)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == "non-finite"
    assert "layer 3" in json.loads(result.stdout)["error"]["message"]


def test_weight_only_recipes_have_nothing_to_calibrate(tmp_path: Path, data: Path) -> None:
    words = ["quantize", str(checkpoint()), str(tmp_path / "out"), "--calibrate", str(data)]
    assert RUN.invoke(app, [*words, "--recipe", "nvfp4-weight-only"]).exit_code == 2
    assert RUN.invoke(app, [*words, "--input-scale", "2"]).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_options_of_several_words() -> None:
    for given, wanted in (
        ("SRC --data a b -o c", "SRC --data a --data b -o c"),
        ("--data a b SRC", "--data a --data b SRC"),
        ("SRC --data a --json", "SRC --data a --json"),
    ):
        assert _spelled_out(given.split(), ("--data",), 1) == wanted.split()
