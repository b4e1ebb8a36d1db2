"""The whole comparison on small checkpoints: figures against whole models in transformers, shape, evidence, errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from compare.models import data, pair
from halfbyte.api import quantize
from halfbyte.cli.output import flag
from halfbyte.compare.comparison import compare
from halfbyte.compare.layers import CandidateChoices
from halfbyte.errors import CheckpointError, DataError, UsageError
from halfbyte.stream.executor import Streamed

FIGURES = {"tokens", "documents", "kl", "perplexity", "top1_agreement"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def found(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compare(*models, data=[str(data(tmp_path_factory.mktemp("data")))], slice=["language"]).as_json()


@torch.no_grad()
def whole_models(folders: tuple[Path, Path], rows: list[list[int]]) -> list[list[torch.Tensor]]:
    """Log-probabilities of each model for each row, by transformers."""
    result = []
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        result.append([model(torch.tensor([row])).logits[0].double().log_softmax(-1) for row in rows])
    return result


def test_figures_equal_whole_models(models: tuple[Path, Path], found: dict[str, Any], tmp_path: Path) -> None:
    rows = [json.loads(line)["input_ids"] for line in data(tmp_path).read_text().splitlines()]
    base, other = whole_models(models, rows)
    kl = [(p.exp() * (p - q)).sum(-1) for p, q in zip(base, other, strict=True)]
    assert found["tokens"] == sum(map(len, rows))
    assert found["documents"] == len(rows)
    assert found["kl"]["mean"] == pytest.approx(float(torch.cat(kl).mean()), rel=1e-4)
    agreement = [p.argmax(-1) == q.argmax(-1) for p, q in zip(base, other, strict=True)]
    assert found["top1_agreement"]["mean"] == pytest.approx(float(torch.cat(agreement).double().mean()))
    for side, logps in (("base", base), ("candidate", other)):
        nll = [-p[:-1].gather(1, torch.tensor(row[1:])[:, None]) for p, row in zip(logps, rows, strict=True)]
        assert found["perplexity"][side] == pytest.approx(float(torch.cat(nll).mean().exp()), rel=1e-4)
    ratio = found["perplexity"]["candidate"] / found["perplexity"]["base"]
    assert found["perplexity"]["ratio"] == pytest.approx(ratio, rel=1e-9)
    assert found["perplexity"]["low"] < ratio < found["perplexity"]["high"]
    korean = torch.cat(kl[1::2]).mean()
    assert found["slices"]["language"]["ko"]["kl"]["mean"] == pytest.approx(float(korean), rel=1e-4)


def test_shape(found: dict[str, Any]) -> None:
    assert {*FIGURES, "slices", "positions", "layers", "worst", "notes"} <= set(found)
    assert set(found["kl"]) == set(found["top1_agreement"]) == {"mean", "low", "high"}
    assert set(found["perplexity"]) == {"base", "candidate", "ratio", "low", "high"}
    assert set(found["slices"]) == {"language"}
    assert set(found["slices"]["language"]) == {"en", "ko"}
    for row in (*found["slices"]["language"].values(), *found["positions"]):
        assert set(row) >= FIGURES
    assert sum(row["tokens"] for row in found["positions"]) == found["tokens"]
    assert [row["layer"] for row in found["layers"]] == list(range(5))
    assert [row["router_agreement"] is None for row in found["layers"]] == [True] * 3 + [False] * 2
    assert [row["indexer_overlap"] is None for row in found["layers"]] == [False] * 3 + [True] * 2
    assert all(0 < row["hidden_error"] < 1 for row in found["layers"])
    kls = [row["kl"] for row in found["worst"]]
    assert kls == sorted(kls, reverse=True)
    json.dumps(found, allow_nan=False)


def test_a_model_against_itself(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(models[0], models[0], data=[str(data(tmp_path))]).as_json()
    assert found["kl"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["perplexity"]["ratio"] == found["perplexity"]["low"] == 1.0
    assert found["top1_agreement"]["low"] == 1.0
    assert {row["router_agreement"] for row in found["layers"]} == {None, 1.0}
    assert all(row["hidden_error"] == 0 for row in found["layers"])


def test_one_document_gives_no_interval(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*models, data=[str(data(tmp_path, (20,)))]).as_json()
    assert found["kl"]["low"] is found["kl"]["high"] is found["perplexity"]["low"] is None
    assert "one document" in found["notes"][0]


def test_one_token_has_no_prediction(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*models, data=[str(data(tmp_path, (1, 1)))]).as_json()
    assert found["tokens"] == 2
    assert set(found["perplexity"].values()) == {None}
    assert found["worst"][0]["perplexity_ratio"] is None


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "Mixtral-8x7B-v0.1"])
def test_other_families(name: str, tmp_path: Path) -> None:
    found = compare(*pair(tmp_path, name), data=[str(data(tmp_path))]).as_json()
    assert found["kl"]["mean"] > 0
    assert all(row["indexer_overlap"] is None for row in found["layers"])
    assert all(row["router_agreement"] is not None for row in found["layers"])


def test_memory_budget_and_work_folder_change_nothing(
    models: tuple[Path, Path], found: dict[str, Any], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"memory_budget": 8_000_000_000, "work": tmp_path / "work", "slice": ["language"]}
    again = compare(*models, data=[str(data(tmp_path))], **options).as_json()
    assert again["kl"]["mean"] == pytest.approx(found["kl"]["mean"], rel=1e-6)
    assert not list((tmp_path / "work").iterdir())


def test_a4_sim_is_a_third_column(models: tuple[Path, Path], tmp_path: Path) -> None:
    quantize(models[0], tmp_path / "nvfp4")
    found = compare(models[0], tmp_path / "nvfp4", data=[str(data(tmp_path))], a4_sim=True).as_json()
    assert found["a4_sim"]["kl"]["mean"] != found["kl"]["mean"]
    assert found["a4_sim"]["perplexity"]["base"] == found["perplexity"]["base"]


def test_evidence_is_appended_and_replaced(models: tuple[Path, Path], tmp_path: Path) -> None:
    candidate = tmp_path / "nvfp4"
    quantize(models[0], candidate)
    before = json.loads((candidate / "halfbyte.json").read_text())
    file = str(data(tmp_path))
    shown = compare(models[0], candidate, data=[file]).as_json()
    compare(models[0], candidate, data=[file], slice=["language"])
    compare(models[0], candidate, data=[file], max_length=5)
    after = json.loads((candidate / "halfbyte.json").read_text())
    entries = after.pop("compare")
    assert after == before
    assert len(entries) == 2
    assert entries[0]["result"]["slices"].keys() == {"language"}
    assert entries[0]["result"]["kl"] == shown["kl"]
    assert entries[0]["data_sha256"] != entries[1]["data_sha256"]
    assert str(tmp_path) not in json.dumps(entries)


def test_evidence_of_other_shards_is_left_alone(models: tuple[Path, Path], tmp_path: Path) -> None:
    candidate = tmp_path / "nvfp4"
    quantize(models[0], candidate)
    document = json.loads((candidate / "halfbyte.json").read_text())
    document["shards"][0]["sha256"] = "0" * 64
    (candidate / "halfbyte.json").write_text(json.dumps(document))
    found = compare(models[0], candidate, data=[str(data(tmp_path))]).as_json()
    assert "evidence" not in found
    assert any("other shards" in note for note in found["notes"])
    assert json.loads((candidate / "halfbyte.json").read_text()) == document


def edited(folder: Path, source: Path, **changes: Any) -> Path:
    """A checkpoint whose config.json differs; the shards are links."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "config.json").unlink()
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 4}, {"vocab_size": 97}, {"hidden_size": 32}])
def test_different_models(models: tuple[Path, Path], tmp_path: Path, changes: dict[str, int]) -> None:
    other = edited(tmp_path / "other", models[1], **changes)
    with pytest.raises(CheckpointError, match=f"cannot compare: {next(iter(changes))} is"):
        compare(models[0], other, data=[str(data(tmp_path))])


def test_different_tokenizers(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Other files are fine if they tokenize the data alike, which rows of input_ids always do."""
    one, other = edited(tmp_path / "one", models[0]), edited(tmp_path / "other", models[1])
    (one / "tokenizer.json").write_text("{}")
    (other / "tokenizer.json").write_text('{"x": 1}')
    assert compare(one, other, data=[str(data(tmp_path))]).as_json()["documents"] == 4
    tiny = Path(__file__).parents[2] / "examples/tiny-glm"
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    (one / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokenizer["pre_tokenizer"] = None
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    for folder in (one, other):
        (folder / "tokenizer_config.json").write_text((tiny / "tokenizer_config.json").read_text())
    (tmp_path / "text.txt").write_text("the answer is 42,\nsays the book")
    with pytest.raises(CheckpointError, match=r"the tokenizers of .* differ on this data"):
        compare(one, other, data=[str(tmp_path / "text.txt")])


def test_bad_requests(models: tuple[Path, Path], tmp_path: Path) -> None:
    file = str(data(tmp_path))
    for options, error, wanted in (
        ({}, UsageError, "nothing to compare on"),
        ({"data": [file], "slice": ["langage"]}, UsageError, "no row of the data has this field"),
        ({"recall": "1k", "slice": ["x"]}, UsageError, "slice needs data"),
        ({"data": [file], "recall": "1q"}, UsageError, "is no length"),
        ({"data": [str(tmp_path / "none.jsonl")]}, DataError, "no such file"),
        ({"data": [file], "memory_budget": 1000}, UsageError, "memory_budget"),
        ({"data": [file], "device": "tpu"}, UsageError, "device"),
    ):
        with pytest.raises(error, match=wanted):
            compare(*models, **options)
    with pytest.raises(CheckpointError, match="no such folder"):
        compare(models[0], tmp_path / "none", data=[file])


def test_document_beyond_the_context(models: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (edited(tmp_path / name, models[0], max_position_embeddings=30) for name in ("a", "b"))
    with pytest.raises(UsageError, match=r"data.jsonl:1: 40 tokens, the model takes 30") as error:
        compare(first, second, data=[str(data(tmp_path))])
    assert error.value.spelled(flag)[1] == "--max-length 30 cuts documents off there"


def test_positions_double(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*models, data=[str(data(tmp_path, (300, 140)))]).as_json()
    assert [(row["start"], row["stop"], row["documents"]) for row in found["positions"]] == [
        (0, 128, 2),
        (128, 256, 2),
        (256, 300, 1),
    ]
    assert found["positions"][2]["kl"]["low"] is None
    weights = [row["tokens"] for row in found["positions"]]
    means = [row["kl"]["mean"] for row in found["positions"]]
    assert np.average(means, weights=weights) == pytest.approx(found["kl"]["mean"])


class Killed(Exception):
    pass


@pytest.mark.parametrize("place", ["before the candidate's layer", "before the layer's row"])
def test_an_interrupted_run_goes_on_with_all_figures(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, candidate = pair(tmp_path)
    options: dict[str, Any] = {"data": [str(data(tmp_path))], "device": "cpu"}
    wanted = compare(base, candidate, **options).as_json()
    name = "router" if place == "before the candidate's layer" else "row"
    true = getattr(CandidateChoices, name)

    def fails(self: CandidateChoices, layer: int, *rest: object) -> object:
        if layer == 3:
            raise Killed
        return true(self, layer, *rest)

    steps: list[Streamed] = []
    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(CandidateChoices, name, fails)
        with pytest.raises(Killed):
            compare(base, candidate, **options, work=work)
    step = Streamed.step

    def counted(self: Streamed, observer: Any) -> Any:
        steps.append(self)
        return step(self, observer)

    monkeypatch.setattr(Streamed, "step", counted)
    found = compare(base, candidate, **options, work=work).as_json()
    assert len(steps) == (3 if name == "router" else 2)
    assert {key: found[key] for key in ("kl", "perplexity", "layers")} == {
        key: wanted[key] for key in ("kl", "perplexity", "layers")
    }
    assert not list(work.glob("model-*"))
