"""Whatever quantize writes with exit 0 passes the gate's default policy, or quantize says why not.

A property over generated small checkpoints: every family, recipes and options drawn at random, and oddities of
published and hand-made checkpoints (tied embeddings with a stored head, MTP layers there and not, dense layers, other
dtypes, stacked experts, one shard or many, side files that a gate minds).
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.checkpoints import checkpoint_with
from small import NUMPY, runnable_changes, small_config
from typer.testing import CliRunner

from halfbyte.cli.main import app

FAMILIES = (
    "GLM-5.2",
    "DeepSeek-V3-BF16",
    "DeepSeek-V3.2",
    "Kimi-K2-BF16",
    "GLM-4.7",
    "GLM-4.5-Air",
    "GLM-4.7-Flash",
    "Qwen3-30B-A3B",
    "Qwen3-Next-80B-A3B",
    "Qwen3.5-35B-A3B-text",
    "MiniMax-M2.5-BF16",
    "Mixtral-8x7B-v0.1",
    "ERNIE-4.5-21B-A3B",
    "Hunyuan-A13B",
    "MiMo-V2-Flash-BF16",
    "DeepSeek-V4-Flash-BF16",
    "Nemotron-3-Nano-30B-A3B",
    "Nemotron-3-Super-120B-A12B",
    "Nemotron-3-Ultra-550B-A55B",
)
RECIPES: tuple[Any, ...] = (
    "nvfp4-routed-experts",
    "nvfp4-experts-and-shared",
    "nvfp4-mlp",
    "nvfp4-weight-only",
    {"routed_expert": "nvfp4", "attention": "nvfp4"},
    {"routed_expert": "nvfp4", "attention": {"o_proj": "nvfp4"}},
    {"shared_expert": "nvfp4"},
    {"dense_mlp": {"down_proj": "nvfp4"}, "routed_expert": "nvfp4"},
    {"attention": {"q_proj": "nvfp4"}},
    {"linear_attention": {"in_proj": "nvfp4", "out_proj": "nvfp4"}, "routed_expert": "nvfp4"},
    {"latent": "nvfp4", "routed_expert": "nvfp4"},
)

NUMBERS = ("BF16", "F16", "F32")

Checkpoint = tuple[Path, dict[str, Any], dict[str, np.ndarray]]


def _edit_config(src: Path, **changes: Any) -> None:
    config = json.loads((src / "config.json").read_text()) | changes
    (src / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def tied(src: Path) -> None:
    _edit_config(src, tie_word_embeddings=True)


def mtp_announced(src: Path) -> None:
    _edit_config(src, num_nextn_predict_layers=2)


def mtp_not_announced(src: Path) -> None:
    _edit_config(src, num_nextn_predict_layers=0)


def licence(src: Path) -> None:
    (src / "README.md").write_text("---\nlicense: proprietary\n---\n# Mine\n")


def remote_code(src: Path) -> None:
    (src / "modeling_mine.py").write_text("import os\n")
    _edit_config(src, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})


def no_tokenizer(src: Path) -> None:
    for path in src.glob("token*"):
        path.unlink()


def pickle(src: Path) -> None:
    (src / "optimizer.pkl").write_bytes(b"\x80\x04.")


def nothing(src: Path) -> None:
    """As made."""


ODDITIES = (nothing, nothing, tied, mtp_announced, mtp_not_announced, licence, remote_code, no_tokenizer, pickle)


def _dtypes(chosen: random.Random, name: str, changes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Some of the model's tensors in other dtypes."""
    from families.headers import headers_for, variant

    kinds = [NUMPY["BF16"], NUMPY["F16"], NUMPY["F32"]]
    config = small_config(name) | changes
    found = {}
    for tensor, (dtype, shape) in headers_for(config, variant(name)).items():
        if dtype in NUMBERS and chosen.random() < 0.3:
            noise = np.random.default_rng(chosen.randrange(2**32)).standard_normal(shape)
            found[tensor] = (noise * 0.05).astype(chosen.choice(kinds))
    return found


def generated(folder: Path, seed: int) -> tuple[Path, list[str]]:
    """A checkpoint and the words that follow `quantize SRC DST`."""
    chosen = random.Random(seed)
    name = FAMILIES[seed % len(FAMILIES)]
    changes = runnable_changes(name)
    if chosen.random() < 0.3 and "first_k_dense_replace" in small_config(name):
        changes |= {"first_k_dense_replace": chosen.choice([0, 2]), "mlp_layer_types": None}
    if chosen.random() < 0.3 and name.startswith("Qwen3"):
        changes["mlp_only_layers"] = [1, 3]
    src = checkpoint_with(folder / "src", name, changes, {})
    if chosen.random() < 0.5:
        config = json.loads((src / "config.json").read_text())
        shapes = {key: config[key] for key in small_config(name) if key in config}
        src = checkpoint_with(folder / "src", name, changes, _dtypes(chosen, name, changes | shapes))
    for oddity in {chosen.choice(ODDITIES), chosen.choice(ODDITIES)}:
        oddity(src)
    recipe = chosen.choice(RECIPES)
    if isinstance(recipe, dict):
        layers = chosen.choice([{}, {"keep_first": 1}, {"keep_last": 2}])
        path = folder / "recipe.yaml"
        path.write_text(json.dumps({"version": 1, "name": "drawn", "roles": recipe, "layers": layers}))
        recipe = str(path)
    words = ["--recipe", recipe, "--rounding", chosen.choice(["max", "sweep"])]
    words += ["--max-shard-size", chosen.choice(["5GB", "200KB"])]
    if recipe != "nvfp4-weight-only":
        words += ["--input-scale", chosen.choice(["1", "0.01", "1e-6"])]
    return src, words + (["--force"] if chosen.random() < 0.3 else [])


def check(seed: int, folder: Path) -> str:
    """What became of one: refused, passed, or said why not."""
    src, words = generated(folder, seed)
    done = CliRunner().invoke(app, ["quantize", str(src), str(folder / "out"), *words, "--json"])
    assert done.exit_code in (0, 1), done.output
    if done.exit_code == 1:
        assert not (folder / "out").exists()
        return "refused"
    told = [line for line in json.loads(done.stdout)["warnings"] if line.startswith("gate refuses")]
    gate = CliRunner().invoke(app, ["gate", str(folder / "out"), "--format", "json"])
    assert gate.exit_code in (0, 1), gate.output
    denied = [f for f in json.loads(gate.stdout)["findings"] if f["severity"] == "deny"]
    assert len(denied) == len(told)
    for finding in denied:
        assert any(finding["rule"] in line and finding["message"] in line for line in told), finding
    assert (gate.exit_code == 0) is not bool(told)
    verified = CliRunner().invoke(app, ["verify", str(src), str(folder / "out")])
    assert verified.exit_code == 0, verified.output
    return "told" if told else "passed"


@pytest.mark.parametrize("seed", range(24))
def test_what_is_written_passes_or_is_explained(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
def test_many_of_them(tmp_path: Path) -> None:
    outcomes = [check(seed, tmp_path / str(seed)) for seed in range(24, 224)]
    assert {"refused", "passed", "told"} == set(outcomes)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_stored_beside_tied_embeddings_is_a_warning_in_both(name: str, tmp_path: Path) -> None:
    src = checkpoint_with(tmp_path / "src", name, runnable_changes(name) | {"tie_word_embeddings": False}, {})
    tied(src)
    words = ["quantize", str(src), str(tmp_path / "out"), "--input-scale", "1", "--json"]
    warnings = json.loads(CliRunner().invoke(app, words).stdout)["warnings"]
    judged = json.loads(CliRunner().invoke(app, ["gate", str(tmp_path / "out"), "--format", "json"]).stdout)
    found = [f for f in judged["findings"] if "tie_word_embeddings" in f["message"]]
    assert [f["severity"] for f in found] == ["warn"]
    assert found[0]["message"] in warnings
    assert not [f for f in judged["findings"] if f["severity"] == "deny" and f["rule"].startswith("integrity")]


def test_a_large_one_is_judged_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src, warned = checkpoint_with(tmp_path / "src", "Qwen3-30B-A3B", runnable_changes("Qwen3-30B-A3B"), {}), []
    licence(src)
    for size in (4_000_000, 0):
        monkeypatch.setattr("halfbyte.gate.apart.LARGE_INDEX_BYTES", size)
        words = ["quantize", str(src), str(tmp_path / f"out{size}"), "--input-scale", "1", "--json"]
        warned.append(json.loads(CliRunner().invoke(app, words).stdout)["warnings"])
    assert warned[0] == warned[1]
    assert any(line.startswith("gate refuses") and "licence" in line for line in warned[0])
