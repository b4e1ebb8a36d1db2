"""Bad input and bad destinations: one clear error of ours, naming what is wrong, and nothing left behind."""

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoints import family_checkpoint, quantized
from halfbyte import models
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError, HalfbyteError, OutputError, UnsupportedError, UsageError
from halfbyte.export import export

EXPERT = "model.layers.1.mlp.experts.2.down_proj"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return quantized(family_checkpoint(folder / "bf16", "Qwen3-30B-A3B"), folder / "nvfp4")


def overwrite(folder: Path, tensor: str, position: int, content: bytes) -> None:
    """Change bytes of one tensor in place."""
    with Checkpoint.open(folder) as checkpoint:
        place = checkpoint.tensors[tensor]
    with open(folder / place.shard, "r+b") as file:
        file.seek(place.start + position)
        file.write(content)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def truncate(folder: Path) -> None:
    shard = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    with open(shard, "r+b") as file:
        file.truncate(shard.stat().st_size - 100)


def wrong_group_size(folder: Path) -> None:
    edit_config(folder, lambda c: c["quantization_config"].update(group_size=32))


def contradict(folder: Path) -> None:
    edit_config(folder, lambda c: c["quantization_config"].update(quant_algo="W4A16_NVFP4"))


def fp8(folder: Path) -> None:
    (folder / "hf_quant_config.json").unlink()
    edit_config(folder, lambda c: c["quantization_config"].update(quant_algo="FP8"))


def other_method(folder: Path) -> None:
    edit_config(folder, lambda c: c["quantization_config"].update(quant_method="gptq"))


DAMAGE: dict[str, tuple[Callable[[Path], Any], type[HalfbyteError], str]] = {
    "truncated shard": (truncate, CheckpointError, "ends at byte|claims"),
    "NaN block scale": (
        lambda f: overwrite(f, f"{EXPERT}.weight_scale", 5, b"\x7f"),
        CheckpointError,
        f"{EXPERT}.*NaN",
    ),
    "negative block scale": (
        lambda f: overwrite(f, f"{EXPERT}.weight_scale", 5, b"\xb8"),
        CheckpointError,
        f"{EXPERT}.*negative",
    ),
    "NaN weight_scale_2": (
        lambda f: overwrite(f, f"{EXPERT}.weight_scale_2", 0, np.float32("nan").tobytes()),
        CheckpointError,
        f"{EXPERT}.weight_scale_2: is nan",
    ),
    "zero input_scale": (
        lambda f: overwrite(f, f"{EXPERT}.input_scale", 0, bytes(4)),
        CheckpointError,
        f"{EXPERT}.input_scale: is 0",
    ),
    "wrong group size": (wrong_group_size, UnsupportedError, "group size 32"),
    "two algorithms": (contradict, CheckpointError, "W4A16_NVFP4.*NVFP4"),
    "FP8": (fp8, UnsupportedError, "FP8"),
    "GPTQ": (other_method, UnsupportedError, "gptq"),
    "unknown family": (lambda f: edit_config(f, lambda c: c.update(model_type="llama")), UnsupportedError, "llama"),
    "missing key": (lambda f: edit_config(f, lambda c: c.pop("rms_norm_eps")), CheckpointError, "rms_norm_eps"),
    "missing rope_theta": (lambda f: edit_config(f, lambda c: c.pop("rope_theta")), CheckpointError, "rope_theta"),
    "missing tokenizer": (lambda f: (f / "tokenizer.json").unlink(), CheckpointError, "tokenizer.json: missing"),
    "tokenizer too large": (
        lambda f: edit_config(f, lambda c: c.update(vocab_size=100)),
        CheckpointError,
        "beyond config.json's vocab_size",
    ),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), CheckpointError, "not valid JSON"),
    "a word for a number": (
        lambda f: edit_config(f, lambda c: c.update(hidden_size="wide")),
        CheckpointError,
        "config.json: hidden_size is 'wide'",
    ),
    "a list for a number": (
        lambda f: edit_config(f, lambda c: c.update(rope_theta=[1])),
        CheckpointError,
        "config.json: not as expected",
    ),
    "tokens without numbers": (
        lambda f: (f / "tokenizer.json").write_text(
            json.dumps({"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"content": "x"}]})
        ),
        CheckpointError,
        "tokenizer's files: not as expected .KeyError: 'id'",
    ),
    "not BPE": (lambda f: (f / "tokenizer.json").write_text("{}"), UnsupportedError, "byte-level BPE"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_leaves_nothing(damage: str, sound: Path, tmp_path: Path) -> None:
    apply, kind, message = DAMAGE[damage]
    folder = Path(shutil.copytree(sound, tmp_path / "in"))
    apply(folder)
    with pytest.raises(kind, match=message):
        export(folder, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_rows_must_be_a_multiple_of_64(tmp_path: Path) -> None:
    source = family_checkpoint(tmp_path / "bf16", "Qwen3-30B-A3B", moe_intermediate_size=48)
    with pytest.raises(UnsupportedError, match=r"down_proj.*rows of 48 elements.*multiple of 64"):
        export(quantized(source, tmp_path / "nvfp4"), tmp_path / "out.gguf")


REFUSED = ["DeepSeek-V3-BF16", "Kimi-K2-BF16", "GLM-4.7", "GLM-4.7-Flash", "MiniMax-M2.5-BF16", "Hunyuan-A13B"]
REFUSED += ["ERNIE-4.5-21B-A3B", "gpt-oss-20b-BF16", "MiMo-V2-Flash-BF16"]


@pytest.mark.parametrize("name", REFUSED)
def test_nvfp4_that_llamacpp_would_run_wrongly_is_refused(name: str, tmp_path: Path) -> None:
    source = quantized(family_checkpoint(tmp_path / "bf16", name), tmp_path / "nvfp4")
    with pytest.raises(UnsupportedError, match="does not apply the NVFP4 scale of a routed_expert"):
        export(source, tmp_path / "out.gguf")


def test_a_family_without_architecture_is_refused(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.BY_NAME, "qwen3_moe", models.FAMILIES["qwen3_moe"].but(llama_cpp=None))
    with pytest.raises(UnsupportedError, match="is not described"):
        export(sound, tmp_path / "out.gguf")


def test_an_unknown_splitting_rule_is_refused_or_named(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "in"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnsupportedError, match=r"not qwen2: \\w\+") as caught:
        export(folder, tmp_path / "out.gguf")
    assert "tokenizer_pre" in (caught.value.hint or "")
    assert export(folder, tmp_path / "out.gguf", tokenizer_pre="qwen2").tensors > 0


def test_an_existing_output_stays_unless_told(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        export(sound, out)
    assert out.read_bytes() == b"precious"
    export(sound, out, overwrite=True)
    assert out.stat().st_size > 8


def test_a_series_counts_as_existing(sound: Path, tmp_path: Path) -> None:
    assert len(export(sound, tmp_path / "out.gguf", max_shard_size=500_000).files) > 1
    with pytest.raises(OutputError, match="00001-of"):
        export(sound, tmp_path / "out.gguf")


def test_a_disk_without_room_is_noticed_before_the_work(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 1000))
    with pytest.raises(OutputError, match="GB free"):
        export(sound, tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())


def test_the_output_needs_its_name_and_folder(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gguf"):
        export(sound, tmp_path / "out.bin")
    with pytest.raises(OutputError, match="no such folder"):
        export(sound, tmp_path / "none/out.gguf")


def test_mixtral_needs_its_sentencepiece_model(tmp_path: Path) -> None:
    folder = family_checkpoint(tmp_path / "in", "Mixtral-8x7B-v0.1")
    (folder / "tokenizer.model").write_bytes(b"\x0a\xff")
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        export(folder, tmp_path / "out.gguf")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.model: cannot be read"):
        export(folder, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("key", "value"), [("normalizer", None), ("model", {"type": "BPE", "vocab": {}, "merges": []})]
)
def test_a_bpe_of_characters_is_known_by_its_spaces_and_bytes(key: str, value: Any, tmp_path: Path) -> None:
    folder = family_checkpoint(tmp_path / "in", "Gemma-4-26B-A4B-text")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {key: value}))
    with pytest.raises(UnsupportedError, match="is no BPE of characters"):
        export(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_blocks_with_a_zero_scale_over_codes_are_reported(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "in"))
    overwrite(folder, f"{EXPERT}.weight_scale", 5, b"\x00")
    assert export(folder, tmp_path / "out.gguf").zero_scale_blocks == 1


def test_an_unreadable_model_card_is_no_obstacle(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "in"))
    (folder / "README.md").write_text("---\n: [\n---\n")
    assert export(folder, tmp_path / "out.gguf").tensors > 0


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("Qwen3-Next-80B-A3B", {"decoder_sparse_step": 2}, "gate_proj.weight: llama.cpp's 'qwen3next' has no tensor"),
        ("Qwen3-Next-80B-A3B", {"linear_value_head_dim": 32}, "llama.cpp has one width"),
        ("Qwen3-Next-80B-A3B", {"norm_topk_prob": False}, "norm_topk_prob is false"),
        (
            "Qwen3-Next-80B-A3B",
            {"layer_types": [f"{kind}_attention" for kind in ("full", "linear", "linear", "full", "linear")]},
            "full attention in every n-th layer",
        ),
        ("Qwen3.5-35B-A3B-text", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "mrope_section"),
        ("gpt-oss-20b-BF16", {"layer_types": ["full_attention"] * 5}, "a window in every other layer"),
        ("gpt-oss-20b-BF16", {"swiglu_limit": 8.0}, "llama.cpp clamps at 7.0"),
        ("ERNIE-4.5-21B-A3B", {"moe_layer_end_index": 3}, "experts to the last layer"),
        ("MiMo-V2-Flash-BF16", {"n_shared_experts": 1}, "no tensor for it|no shared experts"),
        ("MiMo-V2-Flash-BF16", {"routed_scaling_factor": 2.0}, "routed_scaling_factor"),
        ("MiMo-V2-Flash-BF16", {"partial_rotary_factor": 0.334}, "turns 5 numbers of a head, wanted pairs"),
        ("Nemotron-3-Nano-30B-A3B", {"hybrid_override_pattern": "MEM*-"}, "layer 4 is dense"),
        ("Hunyuan-A13B", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
        ("Gemma-4-26B-A4B-text", {"rope_parameters": {"rope_theta": 1e4}}, "tell layers with a window from those"),
        (
            "Gemma-4-26B-A4B-text",
            {"rope_parameters": {"full_attention": {"rope_type": "default"}, "sliding_attention": {}}},
            "wants rope type 'proportional'",
        ),
        ("Gemma-4-26B-A4B-text", {"layer_types": ["full_attention"] * 5}, "has layers with a window"),
    ],
)
def test_what_a_graph_cannot_compute_is_refused(name: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = family_checkpoint(tmp_path / "in", name, **changes)
    with pytest.raises(UnsupportedError, match=says):
        export(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
