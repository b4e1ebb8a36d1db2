"""The answers follow from the plan: what is said to fit does, and one step more does not."""

from dataclasses import replace

import pytest

from halfbyte.engines.engine import PAGE_TOKENS
from halfbyte.plan import answers
from halfbyte.plan.flags import engine_flags
from halfbyte.plan.memory import plan_memory

from .models import paper, server

GLM = paper()


def test_concurrency_and_context_agree_with_the_pool() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, context=131072))
    most = answers.max_concurrency(GLM, plan)
    assert most == plan.kv_tokens // 131072
    assert answers.max_context(GLM, plan, most) >= 131072
    assert answers.max_context(GLM, plan, most + 1) < 131072
    assert answers.max_context(GLM, plan) == 1_048_576  # the model's own limit, although the pool is larger


def test_every_rank_under_dp_attention_has_its_own_requests() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, dp=8, context=131072))
    assert answers.max_concurrency(GLM, plan) == plan.kv_tokens // 131072 * 8


def test_largest_chunk_is_the_edge() -> None:
    d = server(GLM, fraction=0.85)
    edge = answers.largest_chunk(GLM, d)
    assert plan_memory(GLM.groups, GLM.arch, replace(d, chunk=edge)).fits
    assert not plan_memory(GLM.groups, GLM.arch, replace(d, chunk=edge + answers.CHUNK_STEP)).fits


def test_smallest_gpus() -> None:
    found = answers.smallest_gpus(GLM, server(GLM, "b300", gpus=8))
    assert found is not None
    assert found.deployment.gpus == 4
    bf16 = answers.smallest_gpus(paper("GLM-5.2", "bf16"), server(GLM, "h200"))
    assert bf16 is not None
    assert bf16.deployment.gpus >= 16


@pytest.mark.parametrize(
    ("gpu", "options"),
    [
        ("h100", {"engine": "vllm"}),
        ("b200", {"chunk": 131072}),
        ("rtxpro6000", {"gpus": 4}),
        ("h200", {"engine": "vllm", "fraction": 0.5}),
    ],
)
def test_the_smallest_change_really_fits(gpu: str, options: dict[str, object]) -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, gpu, **options))  # type: ignore[arg-type]
    assert not plan.fits
    change = answers.smallest_change(GLM, plan)
    assert change is not None
    assert change.plan.fits


def test_what_the_next_steps_buy() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, "h200"))
    bought = {str(item["change"]): item for item in answers.what_it_buys(GLM, plan)}
    assert set(bought) == {"recipe nvfp4-mlp", "kv-dtype fp8"}
    assert bought["kv-dtype fp8"]["kv_tokens"] == pytest.approx(plan.kv_tokens * 92_628 / 53_940, rel=1e-3)


def test_a_recipe_that_buys_nothing_is_passed_over() -> None:
    bf16 = paper("GLM-5.2", "bf16")
    plan = plan_memory(bf16.groups, bf16.arch, server(bf16, "h100"))
    fp8 = bf16.with_recipe("fp8-block")
    assert answers.cheaper_recipes(bf16)[0] == "fp8-block"
    assert plan_memory(fp8.groups, fp8.arch, plan.deployment).kv_tokens == plan.kv_tokens == 0
    assert [item["change"] for item in answers.what_it_buys(bf16, plan)] == ["recipe nvfp4-routed-experts"]


def test_nothing_is_listed_that_buys_nothing() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, "h100", gpus=4))
    assert plan.kv_tokens == 0
    assert answers.what_it_buys(GLM, plan) == []


def test_flags_of_both_engines() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, dp=8, mtp_tokens=3, chunk=32768, fraction=0.9, context=65536))
    text = " ".join(engine_flags(GLM, plan))
    for part in (
        "--tp-size 8", "--dp-size 8 --enable-dp-attention", "--chunked-prefill-size 32768", "--mem-fraction-static 0.9",
        "--context-length 65536", "--speculative-num-draft-tokens 4", "--kv-cache-dtype fp8_e4m3",
        "--tool-call-parser glm47",
    ):  # fmt: skip
        assert part in text
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, engine="vllm", tp=1, dp=8, ep=8, mtp_tokens=5))
    text = " ".join(engine_flags(GLM, plan))
    for part in ("--data-parallel-size 8", "--enable-expert-parallel", '"num_speculative_tokens":5', "--max-model-len"):
        assert part in text


@pytest.mark.parametrize(
    ("gpu", "gpus", "options"),
    [("h100", 8, {}), ("h200", 4, {}), ("rtx pro 6000", 8, {}), ("b300", 4, {"concurrency": 4})],
)
def test_a_shorter_context_is_offered_within_a_tenth_of_the_longest(
    gpu: str, gpus: int, options: dict[str, int]
) -> None:
    d = server(GLM, gpu, gpus, "vllm", **options)
    change = answers.smallest_change(GLM, plan_memory(GLM.groups, GLM.arch, d))
    assert change is not None
    offered = change.plan.deployment.context
    assert change.what == f"a context of {offered} tokens"
    low, high = 1, GLM.arch.max_context // PAGE_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        fits = plan_memory(GLM.groups, GLM.arch, replace(d, context=middle * PAGE_TOKENS)).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    assert 0.9 * low * PAGE_TOKENS <= offered <= low * PAGE_TOKENS
