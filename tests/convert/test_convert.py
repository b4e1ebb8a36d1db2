"""One layout into the other: the same numbers, and back to the same bits."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize.test_packed_sources import tensors_of
from small import FAMILIES, small_checkpoint, write_checkpoint
from typer.testing import CliRunner

from halfbyte.api import compare, convert, gate, inspect, quantize, verify
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.convert.scales import converted, inverse
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.evidence.conversion import OriginalScale
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

CT, MODELOPT = "compressed-tensors", "modelopt"


def denied(folder: Path, **options: Any) -> set[str]:
    """Rules that refuse it, but for the tokenizer that a small checkpoint does not have."""
    return {found.rule for found in gate(folder, **options).findings if found.refuses} - {"supply.tokenizer"}


@pytest.mark.parametrize("recipe", ["nvfp4-routed-experts", "nvfp4-weight-only"])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_the_same_checkpoint(family: str, recipe: str, tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "source", family)
    quantize(source, tmp_path / "ours", recipe=recipe, rounding="sweep")
    there = convert(tmp_path / "ours", tmp_path / "there", layout=CT)
    convert(tmp_path / "there", tmp_path / "back", layout=MODELOPT)
    assert there.linears > 0
    for path in (tmp_path / "ours").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()
    for name in ("config.json", "hf_quant_config.json", "model.safetensors.index.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads((tmp_path / "back" / name).read_text())
    for folder in ("there", "back"):
        assert verify(source, tmp_path / folder).ok
        assert denied(tmp_path / folder, depth="full") == denied(tmp_path / "ours", depth="full")
    assert verify(tmp_path / "ours", tmp_path / "there").ok
    assert inspect(tmp_path / "there").parameters == inspect(tmp_path / "ours").parameters


def foreign(folder: Path, source: Path, scalar: tuple[int, ...]) -> Path:
    """As another tool writes it: no evidence, second scales of its own, an `ignore` with an expression in it."""
    chance = np.random.default_rng(3)
    tensors = {}
    for name, (dtype, shape, content) in tensors_of(source).items():
        array = np.frombuffer(content, NUMPY_DTYPES[dtype]).reshape(shape)
        if name.endswith("global_scale"):
            array = np.full(scalar, chance.uniform(1, 4000), np.float32)
        tensors[name] = array
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"]["ignore"] = ["lm_head", "re:.*self_attn.*", "re:.*mlp.gate$"]
    return write_checkpoint(folder, config, tensors)


@pytest.mark.parametrize("scalar", [(), (1,)])
def test_what_another_tool_wrote_comes_back_bit_by_bit(scalar: tuple[int, ...], tmp_path: Path) -> None:
    quantize(small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B"), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "ct", layout=CT)
    theirs = foreign(tmp_path / "theirs", tmp_path / "ct", scalar)
    result = convert(theirs, tmp_path / "here", layout=MODELOPT)
    convert(tmp_path / "here", tmp_path / "back", layout=CT)
    assert tensors_of(tmp_path / "back") == tensors_of(theirs)
    assert result.kept_scales > 0
    evidence = json.loads((tmp_path / "here/halfbyte.json").read_text())
    assert evidence["source"]["format"] == "nvfp4-ct"
    assert len(evidence["converted"]["original_scales"]) == result.kept_scales
    rules = denied(theirs)
    assert rules <= {"numerics.gate-up", "numerics.shared-scale"}


def test_a_list_that_says_otherwise_than_the_files_is_refused(tmp_path: Path) -> None:
    quantize(small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B"), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "ct", layout=CT)
    path = tmp_path / "ct/config.json"
    sound = json.loads(path.read_text())
    for ignore, said in (
        (sound["quantization_config"]["ignore"][1:], "does not name it"),
        ([*sound["quantization_config"]["ignore"], "re:.*down_proj"], "ignore names it"),
        (["re:(a+)+x"], "too many repetitions"),
        (["re:("], "no regular expression"),
    ):
        changed = sound | {"quantization_config": sound["quantization_config"] | {"ignore": ignore}}
        path.write_text(json.dumps(changed))
        found = [one for one in gate(tmp_path / "ct").findings if one.rule == "loadability.exclusions"]
        assert found
        assert said in found[0].found.message


finite = st.floats(width=32, min_value=2.0**-120, max_value=2.0**120)


@given(finite)
def test_a_scale_comes_back(number: float) -> None:
    value = np.float32(number)
    other, kept = converted(value, "there", (), (), {})
    originals = {} if kept is None else {"here": kept}
    back, _ = converted(other, "here", (1,), (1,), originals)
    assert back == value
    assert (kept is None) == (inverse(other, "there") == value)


def test_an_original_that_is_not_its_inverse_is_not_believed() -> None:
    wrong = OriginalScale.of(np.float32(3), ())
    back, _ = converted(np.float32(0.25), "here", (1,), (1,), {"here": wrong})
    assert back == 4


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-44])
def test_a_scale_without_an_inverse_is_refused_by_name(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"experts\.0\.weight_scale_2: is "):
        inverse(np.float32(value), "experts.0.weight_scale_2")


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B")
    quantize(source, tmp_path / "ours")
    with pytest.raises(UnsupportedError, match="no weight is NVFP4"):
        convert(source, tmp_path / "out", layout=CT)
    with pytest.raises(UnsupportedError, match="in the layout modelopt already"):
        convert(tmp_path / "ours", tmp_path / "out", layout=MODELOPT)
    assert not (tmp_path / "out").exists()
    said = CliRunner().invoke(app, ["convert", str(tmp_path / "ours"), str(tmp_path / "out"), "--layout", "gguf"])
    assert said.exit_code == 2
    assert "--layout" in said.stderr


def test_killed_between_shards_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from halfbyte.quantize.journal import Journal

    quantize(small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B"), tmp_path / "ours", max_shard_bytes=20_000)
    convert(tmp_path / "ours", tmp_path / "wanted", layout=CT)
    real, left = Journal.shard_done, random.Random(1).randrange(2, 5)

    def stopping(self: Journal, *words: Any) -> None:
        nonlocal left
        real(self, *words)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "shard_done", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "ours", tmp_path / "out", layout=CT)
    monkeypatch.undo()
    assert not (tmp_path / "out/config.json").exists()
    convert(tmp_path / "ours", tmp_path / "out", layout=CT)
    assert tensors_of(tmp_path / "out") == tensors_of(tmp_path / "wanted")
    assert not (tmp_path / "out/.halfbyte").exists()


def test_it_is_compared_as_what_it_was(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B")
    quantize(source, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "ct", layout=CT)
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"input_ids": list(range(2, 40))}) for _ in range(3)))
    ours, theirs = (compare(source, tmp_path / name, data=[str(data)]).as_json() for name in ("ours", "ct"))
    assert theirs["kl"]["mean"] == pytest.approx(ours["kl"]["mean"], rel=1e-3)


def test_the_command(tmp_path: Path) -> None:
    quantize(small_checkpoint(tmp_path / "source", "Qwen3-30B-A3B"), tmp_path / "ours")
    words = ["convert", str(tmp_path / "ours"), str(tmp_path / "ct"), "--layout", CT, "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["came_from"], document["layout"]) == (MODELOPT, CT)
    with Checkpoint.open(tmp_path / "ct") as checkpoint:
        assert any(name.endswith("weight_global_scale") for name in checkpoint.tensors)
