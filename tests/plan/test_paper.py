"""Tensors on paper are those of the published checkpoints: held against the independent header sets."""

from collections import Counter
from math import prod

import pytest
from families.configs import CONFIGS, config
from families.expected import PUBLISHED, expected
from families.headers import header_set, role_set

from halfbyte.errors import CheckpointError, RecipeError, UnsupportedError
from halfbyte.formats.catalogue import stored_bytes
from halfbyte.models import architecture_of, promised_tensors
from halfbyte.plan.recipes import groups_on_paper, recipe_of_config, storage_by_recipe
from halfbyte.plan.target import on_paper

from .models import paper

PLAIN = [name for name in CONFIGS if "fused" not in name]


@pytest.mark.parametrize("name", PLAIN)
def test_totals_equal_closed_form(name: str) -> None:
    model, want = on_paper(name, config(name), None), expected(name)
    roles = Counter[tuple[str, bool]]()
    for group in model.groups:
        roles[str(group.role), group.mtp] += group.parameters
    assert model.checkpoint_bytes == want.bytes
    assert {key: count for key, count in roles.items() if count} == {k: v for k, v in want.roles.items() if v}


@pytest.mark.parametrize("name", ["GLM-5.2", "DeepSeek-V3-BF16", "GLM-4.7", "Qwen3-30B-A3B", "MiniMax-M2.5-BF16"])
def test_every_tensor_is_one_of_the_header_set(name: str) -> None:
    headers, labels = header_set(name), role_set(name)
    want = Counter((*labels[tensor], shape) for tensor, (_, shape) in headers.items())
    found = Counter[tuple[str, bool, tuple[int, ...]]]()
    for tensor in promised_tensors(architecture_of(config(name))):
        found[str(tensor.role), tensor.mtp, tensor.shape] += tensor.count
    assert found == want


@pytest.mark.parametrize("name", [name for name, known in PUBLISHED.items() if known.bytes])
def test_bytes_equal_published_checkpoints(name: str) -> None:
    assert on_paper(name, config(name), None).checkpoint_bytes == PUBLISHED[name].bytes


def test_recipe_is_read_from_the_config() -> None:
    names = {name: recipe_of_config(config(name)) for name in ("GLM-5.2", "GLM-5.2-FP8", "GLM-5.2-NVFP4")}
    assert names == {"GLM-5.2": "bf16", "GLM-5.2-FP8": "fp8-block", "GLM-5.2-NVFP4": "nvfp4-routed-experts"}
    with pytest.raises(UnsupportedError, match="awq"):
        recipe_of_config({**config("GLM-5.2"), "quantization_config": {"quant_method": "awq"}})


def test_recipes_order_by_size() -> None:
    names = ["bf16", "fp8-block", "nvfp4-routed-experts", "nvfp4-experts-and-shared", "nvfp4-mlp", "nvfp4-all"]
    sizes = [paper("GLM-5.2", name).checkpoint_bytes for name in names]
    assert sizes == sorted(sizes, reverse=True)
    # weight-only drops one float32 for each of 75 x 256 x 3 projections
    difference = paper().checkpoint_bytes - paper("GLM-5.2", "nvfp4-weight-only").checkpoint_bytes
    assert difference == 4 * 75 * 256 * 3


def test_format_bytes_by_hand() -> None:
    shape = (2048, 6144)
    assert stored_bytes(shape, "bf16") == 25_165_824
    assert stored_bytes(shape, "nvfp4") == 6_291_456 + 786_432 + 8
    assert stored_bytes(shape, "fp8-block") == 12_582_912 + 4 * 16 * 48
    assert stored_bytes((130, 129), "fp8-block") == 130 * 129 + 4 * 2 * 2
    assert stored_bytes(shape, "mxfp4") == prod(shape) * 17 // 32
    assert stored_bytes(shape, "int4") == prod(shape) * 9 // 16 + 8
    assert stored_bytes(shape, "int4-zp") == stored_bytes(shape, "int4") + prod(shape) // 64
    assert stored_bytes(shape, "int4-g128") == prod(shape) // 2 + prod(shape) // 64 + 8


def test_a_composite_config_and_paper_only_families() -> None:
    kimi = {
        **config("DeepSeek-V3-BF16"),
        "model_type": "kimi_k2",
        "n_routed_experts": 384,
        "num_nextn_predict_layers": 0,
    }
    vision = {
        "vt_hidden_size": 1152,
        "vt_intermediate_size": 4304,
        "vt_num_hidden_layers": 27,
        "text_hidden_size": 7168,
    }
    arch = architecture_of({"model_type": "kimi_k25", "text_config": kimi, "vision_config": vision})
    assert arch.experts == 384
    assert arch.vision_bytes == 2 * (27 * (4 * 1152**2 + 2 * 1152 * 4304) + 4608**2 + 4608 * 7168)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model_type": "bert"}, UnsupportedError, "bert"),
        ({"hidden_size": "wide"}, CheckpointError, "hidden_size"),
        ({"num_hidden_layers": -1}, CheckpointError, "num_hidden_layers"),
        ({"kv_lora_rank": 0}, CheckpointError, "kv_lora_rank"),
    ],
)
def test_a_senseless_config_is_one_error(changes: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        architecture_of({**config("GLM-5.2"), **changes})


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        storage_by_recipe("nvfp4-routed-expert")
    assert "nvfp4-routed-experts" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("weights", "recipe"),
    [
        ({"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}, "int4-experts"),
        ({"num_bits": 4, "type": "int", "group_size": 32, "symmetric": False}, "int4-experts-asymmetric"),
        ({"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}, None),
        ({"num_bits": 4, "type": "float", "group_size": 16}, None),
        ({"num_bits": 8, "type": "int"}, None),
        ("W4A16", None),
    ],
)
def test_the_int4_of_a_config(weights: object, recipe: str | None) -> None:
    block = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    described = {**config("DeepSeek-V3"), "quantization_config": block}
    if recipe is not None:
        assert recipe_of_config(described) == recipe
        return
    with pytest.raises(UnsupportedError, match="not one of the paper recipes"):
        recipe_of_config(described)


def test_deepseek_v4_by_what_its_config_says_of_the_experts() -> None:
    """As published, and with NVIDIA's experts: to the byte of the published index."""
    described = config("DeepSeek-V4-Flash-0731")
    stated = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert recipe_of_config(described | {"quantization_config": stated}) == "fp8-and-mxfp4-experts"
    mixed = described | {"quantization_config": stated | {"moe_quant_algo": "NVFP4"}}
    assert recipe_of_config(mixed) == "fp8-and-nvfp4-experts"
    groups = groups_on_paper(architecture_of(mixed), storage_by_recipe("fp8-and-nvfp4-experts"))
    assert sum(group.bytes for group in groups) == 175_535_844_088
