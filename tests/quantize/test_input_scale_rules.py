"""`quantize --calibrate --input-scale max|headroom`: what is written, what the evidence says, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibrate.test_command import scales_of
from stream.models import checkpoint
from torch import Tensor
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.cli.main import app
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import UsageError
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.stream.executor import Streamed
from halfbyte.stream.observer import Observer

RUN = CliRunner()
DOWN = "model.layers.3.mlp.experts.down_proj"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    rows = [json.dumps({"input_ids": random.integers(0, 96, 20).tolist()}) for _ in range(10)]
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("\n".join(rows))
    return path


def evidence(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "halfbyte.json").read_text())
    return document


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By options: nothing given, and each rule."""
    folder = tmp_path_factory.mktemp("made")
    for rule in (None, "max", "headroom"):
        quantize(checkpoint(), folder / str(rule), input_scale=rule, calibrate=[str(data)])
    return {rule: folder / rule for rule in ("None", "max", "headroom")}


def test_headroom_is_the_default_with_data(made: dict[str, Path]) -> None:
    shards = {name: [path.read_bytes() for path in sorted(made[name].glob("model*"))] for name in made}
    assert shards["None"] == shards["headroom"]
    assert shards["None"] != shards["max"]
    assert evidence(made["None"]) == evidence(made["headroom"])


def test_max_is_the_largest_value_and_headroom_lies_above_it(made: dict[str, Path]) -> None:
    room, most = scales_of(made["headroom"]), scales_of(made["max"])
    inputs = evidence(made["headroom"])["input_scale"]["calibration"]["inputs"]
    for module, scale in most.items():
        group = "down_proj" if module.endswith("down_proj") else "gate_up_proj"
        one = inputs[f"{module.partition('.experts.')[0]}.experts.{group}"]
        assert scale == np.float32(max(one["largest"].values())) / np.float32(2688)
        assert room[module] == pytest.approx(scale * one["headroom"], rel=1e-6)
        assert np.log2(room[module]).is_integer()
        assert one["headroom"] >= 2


def test_the_choice_is_said_in_result_card_and_evidence(made: dict[str, Path], tmp_path: Path, data: Path) -> None:
    about = evidence(made["headroom"])["input_scale"]
    rooms = [one["headroom"] for name, one in about["calibration"]["inputs"].items() if ".experts." in name]
    said = f"calibrated on 200 tokens of 10 documents, headroom: {min(rooms):,.0f} to {max(rooms):,.0f} times"
    assert about["description"].startswith(said)
    assert said in (made["headroom"] / "README.md").read_text()
    assert evidence(made["max"])["input_scale"]["description"] == "calibrated on 200 tokens of 10 documents, max"
    words = ["quantize", str(checkpoint()), str(tmp_path / "out"), "--calibrate", str(data)]
    shown = RUN.invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert f"input scale: {said}" in shown.stdout.replace("\n", " ")
    dry = RUN.invoke(app, ["quantize", str(checkpoint()), str(tmp_path / "dry"), "--calibrate", str(data), "--dry-run"])
    assert "input scale: calibrated by this run, headroom" in dry.stdout


class Inputs(Observer):
    """Down inputs of layer 3 of the calibrating documents and of the one held out, the last of ten."""

    def __init__(self) -> None:
        self.choices: dict[int, Tensor] = {}
        self.parts: dict[int, list[Tensor]] = {True: [], False: []}

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.choices[sequence] = expert_index.clone()

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        if layer == 3:  # one part for each sequence that has any, in order
            kept = self.parts.setdefault(expert << 8, [])
            kept.append(x.clone())
            having = [i for i in sorted(self.choices) if (self.choices[i] == expert).any()]
            self.parts[having[len(kept) - 1] == 9].append(x.clone())


def test_shares_of_every_rule_are_those_of_the_inputs(made: dict[str, Path], data: Path) -> None:
    seen = Inputs()
    documents = load([str(data)], open_tokenizer(checkpoint())).documents
    with Streamed.open(checkpoint()) as model:
        model.start([torch.from_numpy(document.ids) for document in documents])
        while model.next_layer < 4:
            model.step(seen)
    one = evidence(made["headroom"])["input_scale"]["calibration"]["inputs"][DOWN]
    assert set(one["rules"]) == {"max", "headroom", "1", "written"}
    amax = {held: torch.cat(seen.parts[held]).unflatten(1, (-1, 16)).abs().amax(-1).double() for held in (False, True)}
    assert one["largest"] == {"calibration": float(amax[False].max()), "held_out": float(amax[True].max())}
    assert one["rules"]["max"]["input_scale"] == float(amax[False].max()) / 2688
    for rule in one["rules"].values():
        scale = rule["input_scale"]
        for held, name in ((False, "calibration"), (True, "held_out")):
            used = amax[held][amax[held] > 0]
            exact = {
                "clipped": float((used > np.float32(2688 * scale)).double().mean()),
                "subnormal": float((used <= 6 / 64 * scale).double().mean()),
                "vanished": float((used <= 6 / 1024 * scale).double().mean()),
            }
            slack = 0 if np.log2(scale).is_integer() else 0.05
            for share, value in exact.items():
                assert value <= rule[name][share] <= value + slack


def test_gptq_measures_the_rounded_model_in_the_same_pass(made: dict[str, Path], tmp_path: Path, data: Path) -> None:
    options: dict[str, Any] = {"rounding": "gptq", "calibrate": [str(data)]}
    outs = {scale: tmp_path / str(scale) for scale in (None, "max", "1")}
    for scale, out in outs.items():
        quantize(checkpoint(), out, input_scale=scale, **options)
    assert set(scales_of(outs["1"]).values()) == {1.0}
    assert "as the rounded experts see them, headroom" in evidence(outs[None])["input_scale"]["description"]
    calibration = evidence(outs["max"])["input_scale"]["calibration"]
    assert (calibration["amax"], calibration["model"]) == ("max", "rounded")
    assert calibration["held_out"] == {"documents": 1}
    plain = evidence(made["max"])["input_scale"]["calibration"]
    for name in (f"model.layers.{n}.mlp.experts.gate_up_proj" for n in (3, 4)):
        ours, source = (max(one["inputs"][name]["largest"].values()) for one in (calibration, plain))
        assert (ours == source) == (".3." in name)  # layer 3's inputs come before anything is rounded
    for scale, out in outs.items():
        if scale != "1":
            rule = evidence(out)["input_scale"]["calibration"]["inputs"][DOWN]["rules"]["written"]
            assert scales_of(out)["model.layers.3.mlp.experts.0.down_proj"] == np.float32(rule["input_scale"])


def test_a_killed_run_ends_with_the_same_evidence(
    tmp_path: Path, data: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    step = Streamed.step

    def killed(self: Streamed, observer: Any = None) -> int:
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(self.next_layer)
        return step(self, observer)

    monkeypatch.setattr(Streamed, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize(checkpoint(), tmp_path / "out", calibrate=[str(data)])
    monkeypatch.setattr(Streamed, "step", step)
    quantize(checkpoint(), tmp_path / "out", calibrate=[str(data)])
    assert steps == [0, 1, 2, 3]
    assert evidence(tmp_path / "out") == evidence(made["None"])


def test_a_killed_gptq_run_ends_with_the_same_scales(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"rounding": "gptq", "calibrate": [str(data)]}
    quantize(checkpoint(), tmp_path / "whole", **options)
    done: list[Any] = []
    put = RoundedExperts.put

    def killed(self: RoundedExperts, *arguments: Any) -> None:
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(arguments[:2])
        put(self, *arguments)

    monkeypatch.setattr(RoundedExperts, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize(checkpoint(), tmp_path / "out", **options)
    monkeypatch.setattr(RoundedExperts, "put", put)
    quantize(checkpoint(), tmp_path / "out", **options)
    assert evidence(tmp_path / "out") == evidence(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--input-scale", "max"], "--calibrate"),
        (["--input-scale", "headroom"], "--calibrate"),
        (["--input-scale", "headroom", "--recipe", "nvfp4-weight-only"], "weight-only"),
        (["--input-scale", "2", "--calibrate", "DATA"], "both say"),
        (["--input-scale", "1", "--calibrate", "DATA"], "both say"),
        (["--calibrate", "DATA", "--recipe", "nvfp4-weight-only"], "weight-only"),
        (
            ["--input-scale", "max", "--calibrate", "DATA", "--recipe", "nvfp4-weight-only", "--rounding", "gptq"],
            "weight-only",
        ),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, data: Path, words: list[str], says: str) -> None:
    command = ["quantize", str(checkpoint()), str(tmp_path / "out"), *words, "--json"]
    result = RUN.invoke(app, [str(data) if word == "DATA" else word for word in command])
    assert result.exit_code == 2, result.output
    error = json.loads(result.stdout)["error"]
    assert says in f"{error['message']} {error['hint']}"
    assert error["hint"]
    assert not (tmp_path / "out").exists()


def test_weight_only_gptq_has_no_input_scale_and_says_so(tmp_path: Path, data: Path) -> None:
    result = quantize(
        checkpoint(), tmp_path / "out", recipe="nvfp4-weight-only", rounding="gptq", calibrate=[str(data)]
    )
    assert result.input_scale is None
    assert evidence(tmp_path / "out")["input_scale"] is None
    assert scales_of(tmp_path / "out") == {}


def test_a_file_may_be_called_like_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text('{"3": 2688, "4": 5376}')
    quantize(checkpoint(), tmp_path / "out", input_scale=tmp_path / "max")
    assert set(scales_of(tmp_path / "out").values()) == {1.0, 2.0}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="measured on data"):
        quantize(checkpoint(), tmp_path / "again", input_scale="max")


def test_what_the_calibration_warns_of_is_in_the_result(tmp_path: Path, data: Path) -> None:
    result = quantize(checkpoint(), tmp_path / "out", calibrate=[str(data)], calibration_tokens=40)
    assert any("experts saw fewer than 64 of 40 tokens" in warning for warning in result.warnings)


@pytest.mark.parametrize("rule", ["max", "headroom"])
def test_improving_does_not_measure_scales(made: dict[str, Path], data: Path, rule: str) -> None:
    before = (made["max"] / "halfbyte.json").read_bytes()
    with pytest.raises(UsageError, match="improve input_scale") as caught:
        quantize(checkpoint(), made["max"], rounding="gptq", improve=True, input_scale=rule, calibrate=[str(data)])
    assert "input_scale FILE" in (caught.value.hint or "")
    assert (made["max"] / "halfbyte.json").read_bytes() == before
