"""Engines as they were run: a sound checkpoint meets a release that is not (docs/engines.md 12)."""

from pathlib import Path
from typing import Any

import pytest
from families.published import MINIMAX_M3_CONFIG
from families.test_llama4 import SCOUT, VISION
from small import small_tensors, write_checkpoint

from halfbyte.engines.faults import Loaded, faults_met
from halfbyte.engines.sglang_faults import FAULTS as SGLANG
from halfbyte.engines.vllm_faults import FAULTS as VLLM
from halfbyte.gate.judge import gate
from halfbyte.models import architecture_of, family_of
from halfbyte.quantize.pipeline import quantize

from .tokenizers import tokenizer_for

RULE = "loadability.engine-fault"


def made(folder: Path, name: str, recipe: str = "nvfp4-routed-experts", **changes: Any) -> Path:
    source = write_checkpoint(folder / "source", *small_tensors(name, **changes))
    (source / "tokenizer.json").write_text(tokenizer_for(96))
    quantize(source, folder / "out", recipe=recipe)
    return folder / "out"


def found(folder: Path, engine: str, hardware: str | None = None) -> list[tuple[str, str]]:
    """(severity, message) of each fault."""
    decision = gate(folder, engine=engine, hardware=hardware)
    return [(one.severity, one.found.message) for one in decision.findings if one.rule == RULE]


def severities(folder: Path, engine: str, hardware: str | None, words: str) -> list[str]:
    return [severity for severity, message in found(folder, engine, hardware) if words in message]


def test_the_scale_that_marlin_applies_twice(tmp_path: Path) -> None:
    folder = made(tmp_path, "DeepSeek-V3-BF16")
    assert severities(folder, "sglang@0.5.15.post1", "h100x8", "twice") == ["deny"]
    assert severities(folder, "sglang@0.5.15.post1", None, "twice") == ["warn"]
    assert severities(folder, "sglang", "h100x8", "twice") == ["warn"]
    for engine, hardware in (("sglang@0.5.23", "h100x8"), ("sglang@0.5.15", "b200x8"), ("vllm@0.26", "h100x8")):
        assert severities(folder, engine, hardware, "twice") == [], (engine, hardware)
    assert any("sglang 0.5.23 or newer" in message for _, message in found(folder, "sglang@0.5.15", "h100x8"))


def test_no_release_is_known_that_mends_it_for_glm4_moe(tmp_path: Path) -> None:
    folder = made(tmp_path, "GLM-4.7")
    for version in ("0.5.15.post1", "0.5.23"):
        assert severities(folder, f"sglang@{version}", "h200x8", "twice") == ["deny"]
        assert severities(folder, f"sglang@{version}", "h200x8", "--disable-shared-experts-fusion") == ["deny"]
    assert severities(folder, "sglang@0.5.99", "h200x8", "twice") == ["warn"]
    assert severities(folder, "sglang@0.5.23", "b200x8", "twice") == []


def test_a_factor_of_one_is_harmless_twice(tmp_path: Path) -> None:
    folder = made(tmp_path, "DeepSeek-V3-BF16", routed_scaling_factor=1.0)
    assert severities(folder, "sglang@0.5.15", "h100x8", "twice") == []


def test_the_shared_expert_of_glm_52s_shape_is_fused(tmp_path: Path) -> None:
    folder = made(tmp_path, "DeepSeek-V3-BF16", n_routed_experts=256, moe_intermediate_size=16)
    assert severities(folder, "sglang@0.5.15", "h100x8", "shared expert") == ["deny"]
    assert severities(folder, "sglang@0.5.23", "h100x8", "shared expert") == []
    few = made(tmp_path / "few", "DeepSeek-V3-BF16")
    assert severities(few, "sglang@0.5.15", "h100x8", "shared expert") == []


def test_weight_only_and_dense_layers_of_qwen3(tmp_path: Path) -> None:
    folder = made(tmp_path, "Qwen3-30B-A3B", "nvfp4-weight-only", mlp_only_layers=[0])
    assert severities(folder, "sglang@0.5.15.post1", None, "W4A16_NVFP4") == ["deny"]
    assert severities(folder, "sglang@0.5.23", None, "W4A16_NVFP4") == []
    assert severities(folder, "sglang@0.5.15.post1", None, "NaN") == ["deny"]
    assert severities(folder, "sglang@0.5.23", None, "NaN") == ["warn"]
    assert found(folder, "vllm@0.26") == []


def test_a_head_dim_of_its_own_in_mixtral(tmp_path: Path) -> None:
    folder = made(tmp_path, "Mixtral-8x7B-v0.1", head_dim=32)
    assert severities(folder, "sglang@0.5.15.post1", None, "head_dim") == ["deny"]
    assert severities(made(tmp_path / "usual", "Mixtral-8x7B-v0.1"), "sglang@0.5.15", None, "head_dim") == []


@pytest.mark.parametrize(("engine", "heads"), [("vllm@0.26", "16, 32 or 64"), ("sglang@0.5.23", "32 or 64")])
def test_indexer_kernels_take_certain_numbers_of_heads(engine: str, heads: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "GLM-5.2")
    assert severities(folder, engine, "h100x8", heads) == ["warn"]


def test_layers_that_sglang_builds_without_their_names(tmp_path: Path) -> None:
    folder = made(tmp_path, "Hunyuan-A13B")
    assert severities(folder, "sglang@0.5.23", "h100x8", "without their names") == ["warn"]
    assert found(folder, "vllm@0.26", "h100x8") == []


@pytest.mark.parametrize("kept", [True, False])
def test_the_shared_expert_of_minimax_m3_is_fused_on_any_gpu(kept: bool) -> None:
    family, arch = family_of(MINIMAX_M3_CONFIG)[0], architecture_of(MINIMAX_M3_CONFIG)
    loaded = Loaded(family, arch, "NVFP4", packed_experts=True, kept_shared=kept)
    met = faults_met("sglang", SGLANG, loaded, "sm100", (0, 5, 23))
    assert [one.fault.flag for one in met] == ["--disable-shared-experts-fusion"] * kept


def test_experts_without_a_gate_in_vllms_kernel_for_blackwell(tmp_path: Path) -> None:
    """vLLM's issue 52308: fluent and false on B200, right on SM120 and by the other kernel."""
    folder = made(tmp_path, "Nemotron-3-Nano-30B-A3B")
    assert severities(folder, "vllm@0.27", "b200x8", "gate_proj wrong") == ["deny"]
    assert severities(folder, "vllm@0.27", None, "gate_proj wrong") == ["warn"]
    assert severities(folder, "vllm@0.99", "b200x8", "--moe-backend=flashinfer_cutlass") == ["warn"]
    for engine, hardware in (("vllm@0.27", "h100x8"), ("sglang@0.5.23", "b200x8")):
        assert severities(folder, engine, hardware, "gate_proj wrong") == [], (engine, hardware)
    gated = made(tmp_path / "gated", "Qwen3-30B-A3B")
    assert severities(gated, "vllm@0.27", "b200x8", "gate_proj wrong") == []


def test_half_floats_divide_a_shared_expert_in_vllm(tmp_path: Path) -> None:
    for name in ("GLM-4.7", "Nemotron-3-Nano-30B-A3B"):
        folder = made(tmp_path / name, name, torch_dtype="float16", dtype="float16", routed_scaling_factor=2.5)
        assert severities(folder, "vllm@0.26", "h100x8", "float16") == ["deny"], name
    usual = made(tmp_path / "usual", "Nemotron-3-Nano-30B-A3B")
    assert severities(usual, "vllm@0.26", "h100x8", "float16") == []


def test_scores_that_vllm_applies_twice_to_llama4() -> None:
    """Its loading is right to the byte (run on an H200); CUTLASS on Blackwell by its pull request 43694."""
    config = {"model_type": "llama4", "text_config": SCOUT, "vision_config": VISION}
    family, arch = family_of(config)[0], architecture_of(config)

    def met(gpu: str | None, version: tuple[int, ...], packed: bool = True) -> list[tuple[str, bool]]:
        loaded = Loaded(family, arch, "NVFP4" if packed else None, packed_experts=packed)
        return [(one.fault.name, one.certain) for one in faults_met("vllm", VLLM, loaded, gpu, version)]

    assert met("sm90", (0, 26)) == [("scores-twice", True)]
    assert met("sm90", (0, 33)) == [("scores-twice", False)]
    assert met("sm100", (0, 26)) == [("scores-twice-cutlass", True)]
    assert met("sm90", (0, 26), packed=False) == []
