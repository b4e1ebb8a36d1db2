"""`from_pretrained` on what `halfbyte quantize` wrote: every family, every shipped recipe, and back to disk."""

from pathlib import Path

import pytest
import torch

import halfbyte.runtime as runtime
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.models import roles_of
from halfbyte.runtime.packed import PackedExperts, PackedLinear
from halfbyte.runtime.quantizer import packed_modules
from runtime.models import FAMILIES, decoded, load, logits, quantized, read

BOTH = [("nvfp4-mlp", family) for family in ("GLM-5.2", "Qwen3-30B-A3B")]


@pytest.mark.parametrize(("recipe", "family"), [("nvfp4-routed-experts", family) for family in FAMILIES] + BOTH)
def test_computes_what_the_decoded_checkpoint_computes(recipe: str, family: str, tmp_path: Path) -> None:
    folder = quantized(family, recipe)
    plain = logits(load(decoded(folder, tmp_path / "decoded")))
    model = load(folder)
    for backend in ("dequant", "reference"):
        runtime.use(model, backend=backend)
        assert torch.allclose(logits(model), plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES[:5])  # MiniMax's float32 router is not kept by transformers itself
def test_save_pretrained_writes_the_same_bytes_under_the_same_names(family: str, tmp_path: Path) -> None:
    folder = quantized(family, "nvfp4-mlp" if family == "GLM-5.2" else "nvfp4-routed-experts")
    model = load(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    with Checkpoint.open(folder) as before, Checkpoint.open(tmp_path / "again") as after:
        roles = roles_of(before.config)
        kept = {name for name in before.tensors if not roles.role(name).mtp}
        assert set(after.tensors) == kept
        for name in kept:
            assert (after.tensors[name].dtype, after.tensors[name].shape) == (
                before.tensors[name].dtype,
                before.tensors[name].shape,
            ), name
            assert read(after, name) == read(before, name), name
        assert after.config["quantization_config"] == before.config["quantization_config"]
        assert roles_of(after.config).num_experts == roles.num_experts
    assert torch.equal(logits(load(tmp_path / "again")), logits(load(folder)))


def test_modules_are_packed_as_the_exclusions_say() -> None:
    routed = packed_modules(load(quantized("GLM-5.2")))
    assert {type(module) for module in routed.values()} == {PackedExperts}
    everything = packed_modules(load(quantized("GLM-5.2", "nvfp4-mlp")))
    linears = {path for path, module in everything.items() if isinstance(module, PackedLinear)}
    assert "model.layers.0.mlp.down_proj" in linears
    assert "model.layers.4.mlp.shared_experts.gate_proj" in linears
    assert not any("self_attn" in path or "lm_head" in path for path in everything)


def test_casting_the_model_leaves_codes_and_scales_alone() -> None:
    model = load(quantized("Mixtral-8x7B-v0.1"))
    before = {name: p.clone() for name, p in model.named_parameters() if "experts" in name}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        model.to(dtype)
    for name, parameter in model.named_parameters():
        if name in before:
            assert parameter.dtype == before[name].dtype
            assert torch.equal(parameter.view(torch.uint8), before[name].view(torch.uint8))


def test_loading_says_what_it_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    model = load(quantized("Qwen3-30B-A3B"))
    assert "back end dequant" in caplog.text
    assert runtime.describe(model).startswith("NVFP4 on back end dequant")


def test_generates_as_the_decoded_checkpoint_does(tmp_path: Path) -> None:
    folder, tokens = quantized("Qwen3-30B-A3B"), torch.arange(8)[None]
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    ours = load(folder).generate(tokens, **options)
    assert ours.tolist() == load(decoded(folder, tmp_path / "decoded")).generate(tokens, **options).tolist()


def test_weight_only_checkpoints_load() -> None:
    model = load(quantized("Mixtral-8x7B-v0.1", "nvfp4-weight-only"))
    assert runtime.describe(model).startswith("W4A16_NVFP4")
    assert not any("input_scale" in name for name, _ in model.named_parameters())


def test_a_base_model_loads_without_the_head() -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(quantized("Qwen3-30B-A3B"), dtype=torch.float32)
    assert len(packed_modules(model)) == 5


def test_computes_under_inference_mode() -> None:
    model = load(quantized("Qwen3-30B-A3B"))
    wanted = logits(model)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # more than one: the setting is per thread
    try:
        with torch.inference_mode():
            found = logits(model)
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(found, wanted, atol=1e-6, rtol=1e-5)
