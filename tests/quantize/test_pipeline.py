"""`quantize` on small checkpoints of every family: layout, metadata, fused stacks, dead experts, MTP, verification."""

import json
from pathlib import Path

import numpy as np
import pytest
from small import FAMILIES, FUSED, small_checkpoint, small_tensors, write_checkpoint

from halfbyte.api import inspect, quantize, verify
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.engines.exclusions import contradictions
from halfbyte.models import roles_of


def read(checkpoint: Checkpoint, name: str, dtype: type = np.uint8) -> np.ndarray:
    tensor = checkpoint.tensors[name]
    buffer = bytearray(tensor.bytes)
    checkpoint.read_into(tensor, memoryview(buffer))
    return np.frombuffer(buffer, dtype)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rounding", ["max", "sweep"])
def test_every_family_quantizes_and_verifies(tmp_path: Path, family: str, rounding: str) -> None:
    source = small_checkpoint(tmp_path / "in", family)
    result = quantize(source, tmp_path / "out", rounding=rounding, max_shard_bytes=60_000)
    assert result.shards > 1
    assert sum(row["bytes_after"] for row in result.roles) == inspect(tmp_path / "out").bytes
    checked = verify(source, tmp_path / "out")
    assert checked.ok, checked.mismatches
    assert checked.tensors == inspect(tmp_path / "out").tensors == len(Checkpoint.open(source).tensors)
    experts = {row["format"]: row for row in result.roles if row["role"] == "routed_expert" and not row["mtp"]}
    assert set(experts) == {"nvfp4"}
    assert 0.05 < experts["nvfp4"]["relative_error"] < 0.13
    assert {row["format"] for row in result.roles if row["role"] != "routed_expert"} <= {"bf16", "f32"}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert {key: config[key] for key in json.loads((source / "config.json").read_text())}.items() <= config.items()


@pytest.mark.parametrize("recipe", ["nvfp4-experts-and-shared", "nvfp4-mlp", "nvfp4-weight-only"])
def test_other_recipes_say_in_the_metadata_what_is_in_the_files(tmp_path: Path, recipe: str) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out", recipe=recipe)
    assert verify(source, tmp_path / "out").ok
    with Checkpoint.open(tmp_path / "out") as output:
        roles = roles_of(output.config)
        entries = inventory(output.tensors, roles)
        ignore = output.config["quantization_config"]["ignore"]
        linears = [(e.role, e.format == "nvfp4") for e in entries if e.role.part == "weight" and len(e.shape) == 2]
        assert contradictions(ignore, [(role, q) for role, q in linears if role.role != "embedding"]) == []
        packed = {str(entry.role.role) for entry in entries if entry.format == "nvfp4"}
    wanted = {"routed_expert"} if "weight" in recipe else {"routed_expert", "shared_expert"}
    assert packed == wanted | ({"dense_mlp"} if recipe == "nvfp4-mlp" else set())
    has_input_scale = any(name.endswith("input_scale") for name in Checkpoint.open(tmp_path / "out").tensors)
    assert has_input_scale == (recipe != "nvfp4-weight-only")


@pytest.mark.parametrize("family", FUSED)
def test_fused_stacks_come_out_per_expert_under_published_names(tmp_path: Path, family: str) -> None:
    config, tensors = small_tensors(family)
    quantize(write_checkpoint(tmp_path / "fused", config, tensors), tmp_path / "out")
    apart: dict[str, np.ndarray] = {}
    roles = roles_of(config)
    for name, tensor in tensors.items():
        role = roles.role(name)
        if not role.fused:
            apart[roles.published(name)] = tensor
            continue
        for expert in range(len(tensor)):
            halves = np.split(tensor[expert], 2) if role.projection == "gate_up_proj" else [tensor[expert]]
            projections = ("gate_proj", "up_proj") if role.projection == "gate_up_proj" else ("down_proj",)
            for projection, matrix in zip(projections, halves, strict=True):
                apart[roles.expert_module(role.layer or 0, expert, projection) + ".weight"] = matrix
    quantize(write_checkpoint(tmp_path / "apart", config, apart), tmp_path / "wanted")
    with Checkpoint.open(tmp_path / "out") as ours, Checkpoint.open(tmp_path / "wanted") as wanted:
        assert set(ours.tensors) == set(wanted.tensors)
        for name in wanted.tensors:
            assert np.array_equal(read(ours, name), read(wanted, name)), name
    assert verify(tmp_path / "fused", tmp_path / "out").ok
    block = "block_sparse_moe" if family.startswith(("Mixtral", "MiniMax")) else "mlp"
    assert f"model.layers.4.{block}.experts.0" in " ".join(wanted.tensors)


def test_gate_and_up_share_the_larger_amax_and_each_is_encoded_with_it(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    up = "model.layers.3.mlp.experts.2.up_proj"
    tensors[f"{up}.weight"] = (tensors[f"{up}.weight"].astype(np.float32) * 40).astype(tensors[f"{up}.weight"].dtype)
    quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")
    with Checkpoint.open(tmp_path / "out") as output:
        gate_scale = read(output, f"{up.replace('up', 'gate')}.weight_scale_2", np.float32)
        assert gate_scale == read(output, f"{up}.weight_scale_2", np.float32)
        assert gate_scale[0] == np.float32(np.abs(tensors[f"{up}.weight"].astype(np.float32)).max()) / np.float32(2688)
    assert verify(tmp_path / "in", tmp_path / "out").ok


def test_a_dead_expert_is_written_sound_and_reported(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    dead = "model.layers.4.mlp.experts.1"
    for projection in ("gate_proj", "up_proj", "down_proj"):
        tensors[f"{dead}.{projection}.weight"] = np.zeros_like(tensors[f"{dead}.{projection}.weight"])
    result = quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")
    with Checkpoint.open(tmp_path / "out") as output:
        assert read(output, f"{dead}.gate_proj.weight_scale_2", np.float32)[0] > 0
        assert set(read(output, f"{dead}.up_proj.weight_scale")) == {0x38}
        assert not read(output, f"{dead}.down_proj.weight").any()
    assert next(row for row in result.roles if row["format"] == "nvfp4")["zero_blocks"] == 3 * 64 * 32 // 16
    assert verify(tmp_path / "in", tmp_path / "out").ok


def test_the_mtp_layer_survives_in_bf16_and_is_excluded(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out")
    with Checkpoint.open(source) as before, Checkpoint.open(tmp_path / "out") as after:
        mtp = [name for name in before.tensors if name.startswith("model.layers.5.")]
        assert len(mtp) > 20
        assert all(np.array_equal(read(before, name), read(after, name)) for name in mtp)
        ignore = after.config["quantization_config"]["ignore"]
    assert "model.layers.5*" in ignore
    assert {"model.layers.3.mlp.gate", "model.layers.4.mlp.gate", "lm_head"} <= set(ignore)


def test_an_announced_but_missing_mtp_layer_is_warned_of(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.5.")}
    result = quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")
    assert any("MTP" in warning for warning in result.warnings)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_float_sources_take_the_float_path(tmp_path: Path, dtype: type) -> None:
    config, tensors = small_tensors("Qwen3-30B-A3B")
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")
    assert verify(tmp_path / "in", tmp_path / "out").ok


def test_workers_and_shard_size_do_not_change_a_byte_of_a_tensor(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "one", workers=1, max_shard_bytes=10**9)
    quantize(source, tmp_path / "many", workers=5, max_shard_bytes=30_000)
    with Checkpoint.open(tmp_path / "one") as one, Checkpoint.open(tmp_path / "many") as many:
        assert len(one.shards) == 1
        assert len(many.shards) > 5
        assert all(np.array_equal(read(one, name), read(many, name)) for name in one.tensors)
        for shard in many.shards.values():
            assert isinstance(shard, Shard)
            assert all(t.start % {"F32": 4, "BF16": 2}.get(t.dtype, 1) == 0 for t in shard.header().tensors.values())


def test_evidence_and_card_describe_the_files(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out", rounding="sweep", input_scale=0.5)
    evidence = json.loads((tmp_path / "out/halfbyte.json").read_text())
    written = {file["file"] for file in [*evidence["shards"], *evidence["files"]]}
    on_disk = {path.name for path in (tmp_path / "out").iterdir()}
    assert written | {"halfbyte.json", "README.md"} == on_disk
    assert {file["file"] for file in evidence["source"]["files"]} >= {"config.json", "tokenizer.json", "LICENSE"}
    assert evidence["input_scale"]["constant"] == 0.5
    assert len(evidence["tensors"]) == 2 * 4 * 3
    card = (tmp_path / "out/README.md").read_text()
    assert "license: mit" in card
    assert "constant 0.5, not calibrated" in card


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    result = quantize(source, tmp_path / "out", dry_run=True)
    assert result.bytes_out > 0
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_a_checkpoint_and_leaves_other_files(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "out", max_shard_bytes=30_000)
    (tmp_path / "out/notes.txt").write_text("mine")
    quantize(source, tmp_path / "out", overwrite=True, rounding="sweep")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert verify(source, tmp_path / "out").ok
