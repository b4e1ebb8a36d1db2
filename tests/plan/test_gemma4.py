"""Gemma 4 with experts: a cache of two kinds of heads, against what llama.cpp allocates, and experts 704 wide."""

from typing import Any

import pytest
from families.configs import config

from halfbyte.errors import UsageError
from halfbyte.plan.cuts import check_cuts, cut_warnings
from halfbyte.plan.kv import kv_stage
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.recipes import recipe_of_config
from halfbyte.plan.target import PlannedModel, on_paper
from halfbyte.plan.weights import divisor
from halfbyte.plan.work import work_of

from .models import paper, server

NAME = "Gemma-4-26B-A4B-text"
MIB = 1 << 20
FAR, NEAR = 2 * 2 * 512, 2 * 8 * 256
"""Numbers that a layer keeps of a token: two heads of 512 without a window, eight of 256 with one; keys and values."""


def gemma(**changes: Any) -> PlannedModel:
    return on_paper(NAME, {**config(NAME), **changes}, "nvfp4-routed-experts")


def test_the_cache_of_both_kinds_of_layers() -> None:
    """Values are kept although k_proj makes them: they are normed otherwise, and not rotated."""
    model = gemma()
    d = server(model, "h100", 1, "vllm", chunk=8192)
    stage = kv_stage(model.arch, d, d.limits(model.arch), range(30), last=True)
    assert stage.heads == 5 * FAR * 2
    assert stage.sliding == 25 * NEAR * 2
    assert stage.sliding_share == (1023 + 8192) / 262_144
    narrow = server(model, "h100", 1, "vllm", kv_dtype="fp8")
    assert kv_stage(model.arch, narrow, narrow.limits(model.arch), range(30), last=True).heads == 5 * FAR


def test_llama_cpp_allocates_as_many_numbers() -> None:
    """Posted: "size = 2720.00 MiB (262144 cells, 5 layers)", "size = 159.38 MiB (1536 cells, 25 layers)", both in q8_0,
    34 bytes for 32 numbers."""
    model = gemma()
    d = server(model, "h100", 1, "vllm", kv_dtype="fp8")
    stage = kv_stage(model.arch, d, d.limits(model.arch), range(30), last=True)
    assert stage.heads * 262_144 * 34 / 32 / MIB == 2720.00
    assert round(stage.sliding * 1_536 * 34 / 32 / MIB, 2) == 159.38


@pytest.mark.parametrize(("ranks", "far", "near"), [(2, 1, 4), (4, 1, 2)])
def test_heads_over_ranks(ranks: int, far: int, near: int) -> None:
    """Two heads for keys are on every second of four ranks alike."""
    model = gemma()
    d = server(model, "h100", ranks, "vllm", tp=ranks)
    stage = kv_stage(model.arch, d, d.limits(model.arch), range(30), last=True)
    assert (stage.heads, stage.sliding) == (5 * 2 * far * 512 * 2, 25 * 2 * near * 256 * 2)
    shared = {
        group.layer: divisor(group, model.arch, d.layout) for group in model.groups if group.projection == "k_proj"
    }
    assert (shared[5], shared[4]) == (2, ranks)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_the_pool_is_the_sum_of_its_terms(engine: str) -> None:
    model = gemma()
    plan = plan_memory(model.groups, model.arch, server(model, "h100", 1, engine, context=8192))
    pool = sum(term.bytes for term in plan.terms if term.name.startswith("KV cache"))
    assert pool == pytest.approx(plan.kv_tokens * plan.kv.token_bytes)


def test_work_of_both_kinds_of_heads() -> None:
    """Far layers see all tokens, the others their window; each in its own width."""
    model = gemma()
    plan = plan_memory(model.groups, model.arch, server(model, "h100", 1, "vllm", context=8192))
    work = work_of(model.groups, model.arch, plan)
    seen = 8000 - 0.5
    assert work.attention_flops(1, 8000) == 2 * 16 * (5 * 1024 * seen + 25 * 512 * 1024)
    assert work.kv_read_bytes(8192) - work.kv_read_bytes(4096) == 5 * FAR * 2 * 4096


def test_weights_of_one_gpu() -> None:
    """Experts in NVFP4 and all else in BF16, with the published numbers of parameters."""
    weights = paper(NAME).groups
    assert sum(group.bytes for group in weights) == (
        22_837_985_280 * 9 // 16 + 30 * 128 * 3 * 8 + 2 * (25_233_141_790 - 22_837_985_280)
    )


@pytest.mark.parametrize(("engine", "words"), [("vllm", "its issue 55649"), ("sglang", "its issue 30887")])
def test_experts_704_wide_over_ranks(engine: str, words: str) -> None:
    model = gemma()
    for ranks in (2, 4):
        (warning,) = cut_warnings(model.groups, model.arch, server(model, gpus=ranks, engine=engine))
        assert f"704 over {ranks} ranks leave {704 // ranks} a rank, no multiple of 64" in warning
        assert words in warning
        assert "--ep keeps experts whole" in warning
    assert cut_warnings(model.groups, model.arch, server(model, gpus=1, engine=engine)) == []
    assert cut_warnings(model.groups, model.arch, server(model, gpus=2, engine=engine, ep=2)) == []
    with pytest.raises(UsageError, match="704 over 8 ranks leave 88 a rank, which cuts a block of 16"):
        check_cuts(model.groups, model.arch, server(model, gpus=8, engine=engine))


def test_what_ungated_experts_do_is_not_said_of_them() -> None:
    model = paper("Nemotron-3-Nano-30B-A3B")
    (warning,) = cut_warnings(model.groups, model.arch, server(model, gpus=4, engine="vllm"))
    assert "no multiple of 64" in warning
    assert "issue" not in warning


def listed(*parts: str) -> list[str]:
    return [
        "lm_head",
        "model.vision_tower*",
        *(f"model.language_model.layers.{i}.{p}*" for i in range(30) for p in parts),
    ]


LISTS = {
    "nvfp4-all": listed("router"),
    "nvfp4-mlp": listed("router", "self_attn"),
    "nvfp4-routed-experts": listed("mlp", "router", "self_attn"),
}
"""As ModelOpt 0.47 writes them with NVFP4_DEFAULT_CFG, NVFP4_MLP_ONLY_CFG and NVFP4_EXPERTS_ONLY_CFG."""


@pytest.mark.parametrize("recipe", LISTS)
def test_lists_beside_a_tower_say_the_recipe(recipe: str) -> None:
    block = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": LISTS[recipe]}
    document = {"model_type": "gemma4", "text_config": config(NAME), "quantization_config": block}
    assert recipe_of_config(document) == recipe
