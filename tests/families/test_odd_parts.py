"""Small things that published checkpoints contain beside their weights, and linears that engines pack one by one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.checkpoints import checkpoint_with
from small import FAMILIES, runnable_changes, small_config
from typer.testing import CliRunner

from halfbyte.cli.main import app
from halfbyte.errors import CheckpointError, RecipeError, UnknownTensorError, UnsupportedError
from halfbyte.models import architecture_of, roles_of
from halfbyte.recipes.recipe import Recipe

from .configs import config

LATENT = [name for name in FAMILIES if "kv_lora_rank" in small_config(name)]
LAYERS = range(5)


def run(*words: object, code: int = 0) -> Any:
    json_asked = ("--format", "json") if words[0] == "gate" else ("--json",)
    result = CliRunner().invoke(app, [*map(str, words), *json_asked])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def data(folder: Path) -> Path:
    random, path = np.random.default_rng(0), folder / "data.jsonl"
    path.write_text("\n".join(json.dumps({"input_ids": random.integers(0, 96, 30).tolist()}) for _ in range(6)))
    return path


def with_tensors(folder: Path, name: str, more: dict[str, np.ndarray]) -> Path:
    return checkpoint_with(folder, name, runnable_changes(name), more)


@pytest.mark.parametrize("owners", [("k_proj", "v_proj"), ("attn", "attn")])
@pytest.mark.parametrize("name", FAMILIES)
def test_cache_scales_are_known_everywhere(name: str, owners: tuple[str, str], tmp_path: Path) -> None:
    scales = {
        f"model.layers.{layer}.self_attn.{owner}.{part}": np.ones((), np.float32)
        for layer in LAYERS
        for owner, part in zip(owners, ("k_scale", "v_scale"), strict=True)
    }
    src, out = with_tensors(tmp_path / "src", name, scales), tmp_path / "out"
    groups = {(g["role"], g["format"]): g["tensors"] for g in run("inspect", src)["groups"] if not g["mtp"]}
    assert groups["attention", "f32"] >= 10
    run("quantize", src, out, "--input-scale", "1")
    assert run("verify", src, out)["ok"]
    assert run("gate", out, "--engine", "vllm")["decision"] == "pass"
    run("plan", out, "--gpu", "h100", "--gpus", "1", "--context", "1024")


def test_latent_attention_still_has_no_such_linear() -> None:
    roles = roles_of(small_config("GLM-5.2"))
    with pytest.raises(UnknownTensorError):
        roles.role("model.layers.0.self_attn.k_proj.weight")


BUFFERS = {
    "every layer's": [f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in LAYERS],
    "the model's": ["model.rotary_emb.inv_freq"],
}


@pytest.mark.parametrize("where", BUFFERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_rotary_buffers_are_left_out_and_named(name: str, where: str, tmp_path: Path) -> None:
    more = {buffer: np.ones(8, np.float32) for buffer in BUFFERS[where]}
    src, out = with_tensors(tmp_path / "src", name, more), tmp_path / "out"
    plain = with_tensors(tmp_path / "plain", name, {})
    found, without = run("inspect", src), run("inspect", plain)
    assert found.pop("buffers") == BUFFERS[where]
    assert "buffers" not in without
    assert found == without
    warnings = run("quantize", src, out, "--input-scale", "1")["warnings"]
    assert any("buffers" in line and BUFFERS[where][0] in line for line in warnings)
    assert "rotary" not in (out / "model.safetensors.index.json").read_text()
    assert run("verify", src, out)["ok"]
    assert run("gate", out, "--engine", "vllm")["decision"] == "pass"
    assert run("gate", out, "--engine", "vllm", "--depth", "full", "--source", src)["decision"] == "pass"
    run("plan", src, "--gpu", "h100", "--gpus", "1", "--context", "1024")


def test_commands_that_run_the_model_take_buffers(tmp_path: Path) -> None:
    more = {buffer: np.ones(8, np.float32) for buffer in BUFFERS["every layer's"]}
    src, plain = with_tensors(tmp_path / "src", "DeepSeek-V3-BF16", more), tmp_path / "plain"
    with_tensors(plain, "DeepSeek-V3-BF16", {})
    rows = data(tmp_path)
    run("calibrate", src, "--data", rows, "-o", tmp_path / "scales.json")
    assert run("compare", src, plain, "--data", rows)["kl"]["mean"] == 0
    run("search", src, "--data", rows, "--bits", "12", "-o", tmp_path / "recipe.yaml")


def test_export_names_buffers(tmp_path: Path) -> None:
    more = {buffer: np.ones(8, np.float32) for buffer in BUFFERS["every layer's"]}
    src, out = with_tensors(tmp_path / "src", "Qwen3-30B-A3B", more), tmp_path / "a.gguf"
    assert run("export", src, out)["dropped"] == list(more)
    assert run("verify", src, out)["ok"]


def test_a_buffer_of_no_layer_is_unknown() -> None:
    roles = roles_of(small_config("GLM-5.2"))
    assert not roles.is_buffer("model.layers.99.self_attn.rotary_emb.inv_freq")
    with pytest.raises(UnknownTensorError):
        roles.role("model.layers.99.self_attn.rotary_emb.inv_freq")


def recipe(tmp_path: Path, **attention: str) -> Path:
    path = tmp_path / "recipe.yaml"
    chosen = {"version": 1, "name": "mine", "roles": {"routed_expert": "nvfp4", "attention": attention}}
    path.write_text(json.dumps(chosen))
    return path


LOADABLE = [("o_proj",), ("q_b_proj",), ("q_a_proj", "kv_a_proj_with_mqa"), ("o_proj", "q_b_proj")]


@pytest.mark.parametrize("packed", LOADABLE)
@pytest.mark.parametrize("name", LATENT)
def test_linears_of_latent_attention_that_engines_take(name: str, packed: tuple[str, ...], tmp_path: Path) -> None:
    src, out = with_tensors(tmp_path / "src", name, {}), tmp_path / "out"
    chosen = recipe(tmp_path, **dict.fromkeys(packed, "nvfp4"))
    warnings = run("quantize", src, out, "--recipe", chosen, "--calibrate", data(tmp_path))["warnings"]
    assert not [line for line in warnings if line.startswith("gate refuses")]
    judged = run("gate", out)
    assert judged["decision"] == "pass"
    assert [f["severity"] for f in judged["findings"] if f["rule"] == "selective.role-format"] == ["warn"]
    groups = {(g["role"], g["format"]): g["tensors"] for g in run("inspect", out)["groups"] if not g["mtp"]}
    assert groups["attention", "nvfp4"] == 5 * len(packed)
    assert run("verify", src, out)["ok"]
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        json.dumps({"version": 1, "name": "mine", "formats": {"roles": {"attention": ["bf16", "nvfp4"]}}})
    )
    judged = run("gate", out, "--engine", "vllm", "--depth", "full", "--policy", policy)
    assert judged["decision"] == "pass"
    assert run("compare", src, out, "--data", data(tmp_path))["kl"]["mean"] > 0
    words = ("--gpu", "h100", "--gpus", "1", "--context", "1024")
    paper = run("plan", src / "config.json", "--recipe", chosen, *words)
    assert run("plan", out, *words)["checkpoint_bytes"] == paper["checkpoint_bytes"]


REFUSED: dict[tuple[str, ...], str] = {("kv_b_proj",): "kv_b_proj is absorbed", ("q_a_proj",): "fuse the two"}


@pytest.mark.parametrize("packed", REFUSED)
def test_linears_of_latent_attention_that_no_engine_takes(packed: tuple[str, ...], tmp_path: Path) -> None:
    src, out = with_tensors(tmp_path / "src", "GLM-5.2", {}), tmp_path / "out"
    words = ("quantize", src, out, "--recipe", recipe(tmp_path, **dict.fromkeys(packed, "nvfp4")), "--input-scale", "1")
    assert REFUSED[packed] in run(*words, code=1)["error"]["message"]
    run(*words, "--force")
    found = run("gate", out, "--engine", "vllm", code=1)["findings"]
    assert any(f["rule"] == "loadability.packed-roles" and REFUSED[packed] in f["message"] for f in found)


@pytest.mark.parametrize("name", ["GLM-4.7", "Qwen3-30B-A3B", "MiniMax-M2.5-BF16", "Mixtral-8x7B-v0.1"])
def test_a_packed_output_projection_is_no_damage_and_more_is_refused(name: str, tmp_path: Path) -> None:
    src = with_tensors(tmp_path / "src", name, {})
    for packed, decision in ((("o_proj",), "pass"), (("q_proj", "k_proj", "v_proj", "o_proj"), "deny")):
        out = tmp_path / "-".join(packed)
        chosen = recipe(tmp_path, **dict.fromkeys(packed, "nvfp4"))
        run("quantize", src, out, "--recipe", chosen, "--input-scale", "1")
        judged = run("gate", out, "--engine", "vllm", code=int(decision == "deny"))
        found = [f["severity"] for f in judged["findings"] if f["rule"] == "selective.role-format"]
        assert found == ["warn" if decision == "pass" else "deny"]


def test_a_packed_output_projection_that_the_metadata_exclude_is_refused(tmp_path: Path) -> None:
    src, out = with_tensors(tmp_path / "src", "GLM-5.2", {}), tmp_path / "out"
    run("quantize", src, out, "--recipe", recipe(tmp_path, o_proj="nvfp4"), "--input-scale", "1")
    for name, key in (("config.json", "ignore"), ("hf_quant_config.json", "exclude_modules")):
        document = json.loads((out / name).read_text())
        document["quantization_config" if key == "ignore" else "quantization"][key].append("model.layers.2.self_attn*")
        (out / name).write_text(json.dumps(document))
    found = {f["rule"]: f["severity"] for f in run("gate", out, code=1)["findings"]}
    assert found["selective.role-format"] == found["loadability.exclusions"] == "deny"
    strict = tmp_path / "policy.yaml"
    strict.write_text(json.dumps({"version": 1, "name": "mine"}))
    assert run("gate", out, "--policy", strict, code=1)["decision"] != "pass"


def test_recipes_name_only_linears_of_the_model(tmp_path: Path) -> None:
    src = with_tensors(tmp_path / "src", "GLM-5.2", {})
    error = run("quantize", src, tmp_path / "out", "--recipe", recipe(tmp_path, k_proj="nvfp4"), code=1)["error"]
    assert "k_proj" in error["message"]
    assert "o_proj" in error["hint"]
    with pytest.raises(RecipeError, match="one format"):
        Recipe.parsed('{"version": 1, "name": "a", "roles": {"routed_expert": {"down_proj": "nvfp4"}}}', "a")


@pytest.mark.parametrize(
    "change",
    [
        {"num_nextn_predict_layers": 10**9},
        {"hybrid_layer_pattern": [[0]] * 48},
        {"hybrid_layer_pattern": 1},
        {"moe_layer_freq": ["a"] * 48},
        {"moe_layer_freq": [1] * 47},
    ],
)
def test_lists_of_layers_and_their_number_are_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(change))):
        architecture_of(config("MiMo-V2-Flash-BF16") | change)


V4 = "DeepSeek-V4-Flash-BF16"


def test_transformers_spelling_of_compressed_attention_is_the_published_one() -> None:
    published = config(V4)
    kinds = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    ratios = published["compress_ratios"]
    saved = {key: value for key, value in published.items() if key not in ("compress_ratios", "num_hash_layers")} | {
        "layer_types": [kinds[ratio] for ratio in ratios[:43]],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
        "mlp_layer_types": ["hash_moe"] * 3 + ["moe"] * 40,
    }
    assert architecture_of(saved) == architecture_of(published)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"compress_ratios": [0, 4]}, "compress_ratios is no list"),
        ({"compress_ratios": [3] * 44}, "compress_ratios is no list"),
        ({"compress_ratios": ["a"] * 44}, "compress_ratios is no list"),
        ({"compress_ratios": None, "layer_types": ["full_attention"] * 43}, "layer_types.0. is 'full_attention'"),
        ({"mlp_layer_types": ["moe"] * 42}, "mlp_layer_types has 42 entries"),
        (
            {"compress_rates": {"heavily_compressed_attention": -1}, "compress_ratios": None},
            "wanted a positive integer",
        ),
    ],
)
def test_lists_of_compressed_attention_are_checked(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        architecture_of(config(V4) | change)


def test_what_is_not_described_of_deepseek_v4_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="attention_bias"):
        architecture_of(config(V4) | {"attention_bias": True})
    for taps in ([], [43], "all", [True]):
        with pytest.raises(CheckpointError, match="dspark_target_layer_ids is no list"):
            architecture_of(config(V4) | {"dspark_target_layer_ids": taps})
