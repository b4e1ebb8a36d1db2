"""Bad input: one clear error, nothing half written, nothing lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from small import small_checkpoint, small_tensors, write_checkpoint

from halfbyte import errors
from halfbyte.api import quantize
from halfbyte.checkpoint.index import INDEX_NAME

FIRST = "model-00001-of-00002.safetensors"
EXPERT = "model.layers.3.mlp.experts.2.up_proj.weight"


def truncate(source: Path) -> None:
    os.truncate(source / FIRST, (source / FIRST).stat().st_size - 10)


def remove_shard(source: Path) -> None:
    (source / FIRST).unlink()


def unreadable(source: Path) -> None:
    (source / FIRST).unlink()
    (source / FIRST).mkdir()


def huge_header(source: Path) -> None:
    content = bytearray((source / FIRST).read_bytes())
    content[:8] = (1 << 60).to_bytes(8, "little")
    (source / FIRST).write_bytes(content)


def edit_header(source: Path, edit: Callable[[str], str]) -> None:
    content = (source / FIRST).read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = edit(content[8 : 8 + length].decode()).encode().ljust(length)
    assert len(text) == length
    (source / FIRST).write_bytes(content[:8] + text + content[8 + length :])


def out_of_range(source: Path) -> None:
    header = json.loads(_header(source))
    last = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"))
    edit_header(source, lambda text: text.replace(f",{last}]", f",{last + 2}]", 1).replace(" ", "", 1))


def overlapping(source: Path) -> None:
    header = {name: t for name, t in json.loads(_header(source)).items() if name != "__metadata__"}
    norms = [t["data_offsets"] for t in header.values() if t["shape"] == [64] and t["dtype"] == "BF16"]
    edit_header(source, lambda text: text.replace(str(norms[1]).replace(" ", ""), str(norms[0]).replace(" ", "")))


def _header(source: Path) -> str:
    content = (source / FIRST).read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")].decode()


def unknown_dtype(source: Path) -> None:
    edit_header(source, lambda text: text.replace('"BF16"', '"BF17"', 1))


def index_names_missing_tensor(source: Path) -> None:
    index = json.loads((source / INDEX_NAME).read_text())
    index["weight_map"]["model.layers.4.mlp.nothing.weight"] = FIRST
    (source / INDEX_NAME).write_text(json.dumps(index))


def path_traversal(source: Path) -> None:
    index = json.loads((source / INDEX_NAME).read_text())
    index["weight_map"][EXPERT] = "../outside.safetensors"
    (source / INDEX_NAME).write_text(json.dumps(index))


def already_quantized(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))


def unknown_family(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def config_gone(source: Path) -> None:
    (source / "config.json").unlink()


def config_broken(source: Path) -> None:
    (source / "config.json").write_text("{" * 5000)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (truncate, errors.CheckpointError, "ends at byte"),
        (remove_shard, errors.CheckpointError, "missing shard"),
        (unreadable, errors.CheckpointError, FIRST),
        (huge_header, errors.CheckpointError, "header claims"),
        (out_of_range, errors.CheckpointError, "bytes"),
        (overlapping, errors.CheckpointError, "overlap"),
        (unknown_dtype, errors.CheckpointError, "BF17"),
        (index_names_missing_tensor, errors.CheckpointError, "nothing"),
        (path_traversal, errors.CheckpointError, "outside"),
        (already_quantized, errors.UnsupportedError, "already quantized"),
        (unknown_family, errors.UnsupportedError, "llama"),
        (config_gone, errors.CheckpointError, "config.json"),
        (config_broken, errors.CheckpointError, "config.json"),
    ],
)
def test_a_damaged_source_is_one_error_and_writes_nothing(
    tmp_path: Path, damage: Callable[[Path], None], error: type[errors.HalfbyteError], says: str
) -> None:
    source = small_checkpoint(tmp_path / "in")
    damage(source)
    with pytest.raises(error, match=says):
        quantize(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_nan_and_inf_are_named_with_tensor_and_index(tmp_path: Path, value: float, said: str) -> None:
    config, tensors = small_tensors("GLM-5.2")
    tensors[EXPERT][7, 13] = value
    source = write_checkpoint(tmp_path / "in", config, tensors)
    with pytest.raises(errors.NonFiniteError, match=rf"{EXPERT}.*{said} at index \[7, 13\]"):
        quantize(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fixed_source_can_be_quantized_into_the_same_folder(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    good = tensors[EXPERT].copy()
    tensors[EXPERT][0, 0] = np.nan
    source = write_checkpoint(tmp_path / "in", config, tensors)
    (tmp_path / "out").mkdir()
    with pytest.raises(errors.NonFiniteError):
        quantize(source, tmp_path / "out", max_shard_bytes=20_000)
    assert list((tmp_path / "out").iterdir()) == []
    tensors[EXPERT] = good
    write_checkpoint(source, config, tensors)
    quantize(source, tmp_path / "out")


def test_rows_that_are_no_multiple_of_16_are_refused(tmp_path: Path) -> None:
    config, tensors = small_tensors("Qwen3-30B-A3B", moe_intermediate_size=24)
    with pytest.raises(errors.UnsupportedError, match=r"down_proj.weight: shape \[64, 24\].*multiple of 16"):
        quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")


def test_integers_cannot_be_quantized(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    tensors[EXPERT] = np.zeros(tensors[EXPERT].shape, np.uint8)
    with pytest.raises(errors.UnsupportedError, match=f"{EXPERT}: U8"):
        quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")


@pytest.mark.parametrize("missing", [EXPERT, "model.layers.4.mlp.experts.3.down_proj.weight"])
def test_a_missing_expert_is_named(tmp_path: Path, missing: str) -> None:
    config, tensors = small_tensors("GLM-5.2")
    del tensors[missing]
    with pytest.raises(errors.CheckpointError, match=f"{missing} is missing"):
        quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2")
    tensors["model.layers.4.mlp.experts.0.side_proj.weight"] = np.zeros((4, 16), ml_dtypes.bfloat16)
    with pytest.raises(errors.UnknownTensorError, match="side_proj"):
        quantize(write_checkpoint(tmp_path / "in", config, tensors), tmp_path / "out")


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    (source / "model-00002-of-00002.safetensors").write_bytes((source / FIRST).read_bytes())
    with pytest.raises(errors.CheckpointError, match="stands in both"):
        quantize(source, tmp_path / "out")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years")
    with pytest.raises(errors.OutputError, match="not empty"):
        quantize(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("where", ["in", "in/below", "."])
def test_source_and_output_may_not_overlap(tmp_path: Path, where: str) -> None:
    source = small_checkpoint(tmp_path / "in")
    with pytest.raises(errors.OutputError, match="source"):
        quantize(source, tmp_path / where, overwrite=True)
    assert (source / "config.json").exists()


def test_too_little_space_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_checkpoint(tmp_path / "in")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(errors.OutputError, match=r"needs .* free"):
        quantize(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recipe", "says", "hint"),
    [
        ("nvfp4-routed-expert", "no recipe", "nvfp4-routed-experts"),
        ({"rolls": {}}, "rolls", "roles"),
        ({"roles": {"routed_experts": "nvfp4"}}, "unknown role", "routed_expert"),
        ({"roles": {"routed_expert": "nvfp5"}}, "nvfp5", "nvfp4"),
        ({"layers": {"keep_frist": 2}}, "keep_frist", "keep_first"),
        ({"layers": {"overrides": [{"layers": "3-x", "roles": {}}]}}, "3-x", ""),
        ({"layers": {"overrides": [{"layers": 99, "roles": {"routed_expert": "keep"}}]}}, "layer 99", ""),
        ({"roles": {"norm": "nvfp4"}}, "one dimension", ""),
        ({"roles": {"router": "nvfp4"}}, "decides top-k", "force"),
        ({"roles": {"attention": "nvfp4"}}, "absorbed", "force"),
        ({"roles": {"indexer": "nvfp4"}}, "wk", "force"),
        ({"roles": {"lm_head": "nvfp4"}}, "never loaded", "force"),
        ({"mtp": "nvfp4"}, "MTP", "force"),
        ({"algorithm": "NVFP4_AWQ"}, "NVFP4_AWQ", ""),
    ],
)
def test_recipes_are_checked_with_a_suggestion(tmp_path: Path, recipe: object, says: str, hint: str) -> None:
    source = small_checkpoint(tmp_path / "in")
    if isinstance(recipe, dict):
        base = {"version": 1, "name": "mine", "roles": {"routed_expert": "nvfp4"}}
        (tmp_path / "mine.yaml").write_text(json.dumps(base | recipe))
        recipe = tmp_path / "mine.yaml"
    with pytest.raises(errors.RecipeError, match=says) as caught:
        quantize(source, tmp_path / "out", recipe=str(recipe))
    assert hint in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_force_writes_what_engines_refuse_and_says_so(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    recipe = {"version": 1, "name": "all", "roles": {"routed_expert": "nvfp4", "attention": "nvfp4"}, "mtp": "nvfp4"}
    (tmp_path / "all.yaml").write_text(json.dumps(recipe))
    result = quantize(source, tmp_path / "out", recipe=tmp_path / "all.yaml", force=True)
    assert [warning for warning in result.warnings if warning.startswith("forced")]


def test_layers_at_the_ends_can_be_kept(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in", "Qwen3-30B-A3B")
    layers = {"keep_first": 1, "keep_last": 1, "overrides": [{"layers": "2", "roles": {"routed_expert": "keep"}}]}
    recipe = {"version": 1, "name": "ends", "roles": {"routed_expert": "nvfp4"}, "layers": layers}
    (tmp_path / "ends.yaml").write_text(json.dumps(recipe))
    quantize(source, tmp_path / "out", recipe=tmp_path / "ends.yaml")
    evidence = json.loads((tmp_path / "out/halfbyte.json").read_text())
    assert {module.split(".")[2] for module in evidence["tensors"]} == {"1", "3"}
    ignore = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["ignore"]
    assert {"model.layers.0.*", "model.layers.2.*", "model.layers.4.*"} <= set(ignore)


def test_a_file_system_that_refuses_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    limited = f"ulimit -f 64; exec {sys.executable} -m halfbyte quantize {source} {tmp_path / 'out'} --json"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "bad-output"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_rounding_is_refused(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    with pytest.raises(errors.UsageError, match="max or sweep"):
        quantize(source, tmp_path / "out", rounding="floor")
