"""`quantize --rounding gptq` end to end: bytes, evidence, resume, determinism, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize, verify
from halfbyte.cli.main import app
from halfbyte.errors import NonFiniteError, UsageError
from halfbyte.quantize import pipeline
from halfbyte.quantize.rounding.store import RoundedExperts, StoredExpert
from halfbyte.quantize.staging import publish as staged_publish
from halfbyte.stream.executor import Streamed

EXPERTS = 8  # two MoE layers of four


@pytest.fixture
def data(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    rows = [json.dumps({"input_ids": random.integers(0, 96, 30).tolist()}) for _ in range(12)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return str(tmp_path / "data.jsonl")


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def evidence(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "halfbyte.json").read_text())
    return document


def test_the_checkpoint_loads_and_says_how_it_was_made(tmp_path: Path, data: str) -> None:
    out = tmp_path / "out"
    quantize(checkpoint(), out, recipe="nvfp4-mlp", rounding="gptq", calibrate=[data])
    assert verify(checkpoint(), out).ok
    document = evidence(out)
    about = document["rounded_on_data"]
    assert document["rounding"] == "gptq"
    assert about["data"]["tokens"] == 360
    assert about["rounded_by_sweep"] == ["dense_mlp", "shared_expert"]
    assert set(about["experts"]) == {"3", "4"}
    for layer in about["experts"].values():
        assert sum(one["tokens"] + one["held_out_tokens"] for one in layer) == 360 * 2
        assert sum(one["held_out_tokens"] for one in layer) == 30 * 2
    errors = [one for layer in about["experts"].values() for one in layer if one["output_error"] is not None]
    assert sum(one["output_error"] for one in errors) < sum(one["output_error_max"] for one in errors)
    assert str(tmp_path) not in (out / "halfbyte.json").read_text()
    assert not (out / ".halfbyte").exists()
    with Streamed.open(out) as model:  # gate and up share weight_scale_2, every scale is sound: the reader checks
        import torch

        model.start([torch.arange(20)])
        while model.next_layer < model.layers:
            model.step()
        assert model.logits(0, 0, 20).isfinite().all()


def test_weighted_sweep_weighs_by_the_data_and_says_so(tmp_path: Path, data: str) -> None:
    out = tmp_path / "out"
    arguments = ["quantize", str(checkpoint()), str(out), "--rounding", "weighted-sweep"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    done = CliRunner().invoke(app, [*arguments, "--calibrate", data, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["rounding"] == "weighted-sweep"
    document = evidence(out)
    assert document["rounding"] == document["rounded_on_data"]["method"] == "weighted-sweep"
    assert document["rounded_on_data"]["settings"]["compensate"] is False
    assert verify(checkpoint(), out).ok
    quantize(checkpoint(), tmp_path / "sweep", rounding="sweep")
    assert shards(out) != shards(tmp_path / "sweep")


def test_same_bytes_for_any_budget_and_worker_count(tmp_path: Path, data: str) -> None:
    quantize(checkpoint(), tmp_path / "a", rounding="gptq", calibrate=[data], workers=1)
    quantize(checkpoint(), tmp_path / "b", rounding="gptq", calibrate=[data], workers=3, memory_budget=3_000_000_000)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")
    assert (tmp_path / "a/halfbyte.json").read_bytes() == (tmp_path / "b/halfbyte.json").read_bytes()


@pytest.mark.parametrize("after", [0, pytest.param(3, marks=pytest.mark.slow), 6])
def test_an_interrupted_run_goes_on_expert_by_expert(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    quantize(checkpoint(), tmp_path / "whole", rounding="gptq", calibrate=[data])
    put = RoundedExperts.put
    done: list[tuple[int, int]] = []

    def killed(self: RoundedExperts, layer: int, expert: int, stored: StoredExpert) -> None:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append((layer, expert))
        put(self, layer, expert, stored)

    monkeypatch.setattr(RoundedExperts, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize(checkpoint(), tmp_path / "out", rounding="gptq", calibrate=[data])
    again: list[tuple[int, int]] = []

    def counted(self: RoundedExperts, layer: int, expert: int, stored: StoredExpert) -> None:
        again.append((layer, expert))
        put(self, layer, expert, stored)

    monkeypatch.setattr(RoundedExperts, "put", counted)
    quantize(checkpoint(), tmp_path / "out", rounding="gptq", calibrate=[data])
    assert len(again) == EXPERTS - after
    assert not set(again) & set(done)
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert evidence(tmp_path / "out") == evidence(tmp_path / "whole")


def test_a_run_killed_while_writing_rounds_nothing_again(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"rounding": "gptq", "calibrate": [data], "max_shard_bytes": 40_000}
    quantize(checkpoint(), tmp_path / "whole", **options)
    publish = staged_publish

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize(checkpoint(), tmp_path / "out", **options)
    assert not list((tmp_path / "out/.halfbyte/experts").glob("*.codes"))
    monkeypatch.setattr(pipeline, "publish", publish)
    monkeypatch.setattr(RoundedExperts, "put", killed)
    quantize(checkpoint(), tmp_path / "out", **options)
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert evidence(tmp_path / "out") == evidence(tmp_path / "whole")


def test_refusals(tmp_path: Path, data: str) -> None:
    with pytest.raises(UsageError, match="rounding gptq rounds on data"):
        quantize(checkpoint(), tmp_path / "out", rounding="gptq")
    result = CliRunner().invoke(app, ["quantize", str(checkpoint()), str(tmp_path / "out"), "--rounding", "best"])
    assert result.exit_code == 2


def test_an_infinite_weight_is_named_and_nothing_is_left(tmp_path: Path, data: str) -> None:
    from small import small_tensors, write_checkpoint
    from stream.models import CHANGES

    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    tensors["model.layers.4.mlp.experts.1.down_proj.weight"][0, 0] = np.inf
    source = write_checkpoint(tmp_path / "source", config, tensors)
    with pytest.raises(NonFiniteError, match="layer 4, expert 1: NaN or Inf in down_proj"):
        quantize(source, tmp_path / "out", rounding="gptq", calibrate=[data])
    assert not list(tmp_path.glob("out/*.safetensors"))
