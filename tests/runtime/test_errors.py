"""Damaged checkpoints and impossible wishes: an error that names the tensor, never a model with wrong numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import halfbyte.runtime as runtime
from halfbyte.errors import CheckpointError, HalfbyteError, UnsupportedError, UsageError
from halfbyte.runtime import backends
from runtime.models import load, quantized

EXPERT = "model.layers.1.mlp.experts.2.gate_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized("Qwen3-30B-A3B"), tmp_path / "copy"))


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    """Rewrite the whole checkpoint as one shard after `edit`."""
    tensors: Tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= values
    (folder / "config.json").write_text(json.dumps(config))


def with_byte(value: int) -> Callable[[Tensors], object]:
    return lambda tensors: tensors[f"{EXPERT}.weight_scale"].view(torch.uint8)[3, 1:2].fill_(value)


@pytest.mark.parametrize(("byte", "shown"), [(0x7F, "nan"), (0xFF, "nan"), (0xB8, "-1.0"), (0x80, "-0.0")])
def test_a_block_scale_that_is_nan_or_negative_is_refused(folder: Path, byte: int, shown: str) -> None:
    change(folder, with_byte(byte))
    with pytest.raises(CheckpointError, match=rf"layers\.1\.mlp\.experts\.gate_up_proj_scale.*{shown} at \[2, 3, 1\]"):
        load(folder)


def test_a_block_scale_of_zero_is_a_block_of_zeros(folder: Path) -> None:
    change(folder, with_byte(0))
    experts = load(folder).model.layers[1].mlp.experts
    values = runtime_values(experts.gate_up.expert(2))
    assert (values[3, 16:32] == 0).all()
    assert (values[3, :16] != 0).any()


def runtime_values(matrices: object) -> torch.Tensor:
    from halfbyte.formats.nvfp4 import torch as values

    return values.decode(matrices.codes, matrices.scales, torch.float32)  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["weight_scale_2", "input_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tensor_scale_must_be_positive_and_finite(folder: Path, part: str, value: float) -> None:
    change(folder, lambda tensors: tensors[f"{EXPERT}.{part}"].fill_(value))
    with pytest.raises(CheckpointError, match=rf"gate_up_proj_{part.removeprefix('weight_')}: .*at \[2, 0\]"):
        load(folder)


@pytest.mark.parametrize("part", ["weight", "weight_scale", "weight_scale_2", "input_scale"])
def test_a_missing_tensor_is_named(folder: Path, part: str) -> None:
    change(folder, lambda tensors: tensors.pop(f"{EXPERT}.{part}"))
    with pytest.raises(CheckpointError, match=r"experts\.2\.gate_proj"):
        load(folder)


def test_a_missing_plain_tensor_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop("model.layers.0.self_attn.o_proj.weight"))
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.self_attn\.o_proj\.weight"):
        load(folder)


def test_an_extra_tensor_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.o_proj.bias": torch.zeros(64)}))
    with pytest.raises(CheckpointError, match=r"o_proj\.bias"):
        load(folder)


def test_an_ill_shaped_expert_is_named(folder: Path) -> None:
    def halve(tensors: Tensors) -> None:
        for part in ("weight", "weight_scale"):
            tensors[f"{EXPERT}.{part}"] = tensors[f"{EXPERT}.{part}"][:16].clone()

    change(folder, halve)
    with pytest.raises(CheckpointError, match=r"experts\.2\.gate_proj\.weight.*: shape \[16, .*wants \[32, "):
        load(folder)


def test_a_linear_that_is_excluded_but_packed_is_named(folder: Path) -> None:
    change_config(folder, ignore=["lm_head", "model.layers.*"])
    with pytest.raises(HalfbyteError):
        load(folder)
    entries = json.loads((quantized("Qwen3-30B-A3B") / "config.json").read_text())["quantization_config"]["ignore"]
    change_config(folder, ignore=[*entries, "model.layers.1.mlp.experts*"])
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.experts\.0.*stored packed but excluded"):
        load(folder)
    change_config(folder, ignore=[entry for entry in entries if "layers.2.self_attn" not in entry])
    with pytest.raises(CheckpointError, match=r"layers\.2\.self_attn.*stored bf16 but not excluded"):
        load(folder)


def test_a_truncated_shard_is_refused(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"truncated|ends at"):
        load(folder)


@pytest.mark.parametrize("algorithm", ["FP8", "MIXED_PRECISION", "NVFP4_AWQ", None, 4])
def test_other_algorithms_are_refused(folder: Path, algorithm: object) -> None:
    change_config(folder, quant_algo=algorithm)
    with pytest.raises(UnsupportedError, match="quant_algo"):
        load(folder)


def test_another_group_size_is_refused(folder: Path) -> None:
    change_config(folder, group_size=32)
    with pytest.raises(UnsupportedError, match="group_size is '32'"):
        load(folder)


def test_unknown_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="backend: 'fast'"):
        runtime.ModelOptConfig(backend="fast")
    monkeypatch.setenv("HALFBYTE_ACTIVATIONS", "a8")
    with pytest.raises(UsageError, match="HALFBYTE_ACTIVATIONS: 'a8'"):
        load(quantized("Qwen3-30B-A3B"))


def test_humming_without_a_gpu_is_an_error_and_auto_says_what_it_does_instead() -> None:
    with pytest.raises(UsageError, match="humming cannot run: the weights lie on cpu"):
        load(quantized("Qwen3-30B-A3B"), quantization_config=runtime.ModelOptConfig(backend="humming"))
    assert "the weights lie on cpu" in runtime.describe(load(quantized("Qwen3-30B-A3B")))


def test_an_old_gpu_or_a_missing_package_is_a_stated_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert backends.humming_obstacle({device}) == "Tesla V100 has capability 7.0, not 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert "humming-kernels cannot be imported" in str(backends.humming_obstacle({device}))


def test_a4_sim_needs_input_scales() -> None:
    with pytest.raises(UsageError, match="needs input_scale"):
        load(
            quantized("Mixtral-8x7B-v0.1", "nvfp4-weight-only"),
            quantization_config=runtime.ModelOptConfig(activations="a4-sim"),
        )


def test_training_is_refused() -> None:
    model = load(quantized("Qwen3-30B-A3B")).train()
    with pytest.raises(UnsupportedError, match="no backward pass"):
        model(torch.arange(4)[None])
