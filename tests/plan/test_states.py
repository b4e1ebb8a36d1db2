"""Mamba-2: a state for each sequence, nothing for a token; against what vLLM posted of Nemotron-3-Nano's shape."""

import pytest
from families.configs import config

from halfbyte.plan import answers
from halfbyte.plan.kv import state_bytes
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.target import PlannedModel, on_paper
from halfbyte.plan.work import work_of

from .models import server

NANO, SUPER = "Nemotron-3-Nano-30B-A3B", "Nemotron-3-Super-120B-A12B"
GIB = 2**30


def nemotron(name: str = NANO, **changes: object) -> PlannedModel:
    return on_paper(name, {**config(name), **changes}, "nvfp4-routed-experts")


def test_the_state_is_of_a_sequence() -> None:
    """Three inputs of 6,144 channels in BF16; 64 heads of 64 x 128 in float32, or as config.json says."""
    model = nemotron()
    held = 3 * 6144 * 2 + 64 * 64 * 128 * 4
    assert state_bytes(model.arch, server(model, gpus=1)) == held == 2_134_016
    assert state_bytes(model.arch, server(model, gpus=2)) == held / 2
    halves = nemotron(mamba_ssm_cache_dtype="bfloat16")
    assert state_bytes(halves.arch, server(halves, gpus=1)) == 3 * 6144 * 2 + 64 * 64 * 128 * 2


def test_vllms_page_is_the_state_and_little_more() -> None:
    """Posted: "Setting attention block size to 4176 tokens to ensure that attention page size is >= mamba page size",
    "padding mamba page size by 0.19%", with an FP8 cache of two heads of 128."""
    model = nemotron()
    page, state = 4176 * 2 * 2 * 128, state_bytes(model.arch, server(model, gpus=1, engine="vllm"))
    assert state <= page
    assert round(100 * (page / state - 1), 2) == 0.19


@pytest.mark.parametrize(
    ("version", "gib", "context", "posted", "within"),
    [("0.19.1", 68.97, 262_144, 86.16, 0.007), ("0.20.1", 3.72, 256_000, 4.71, 0.016)],
)
def test_sequences_of_posted_pools(version: str, gib: float, context: int, posted: float, within: float) -> None:
    """vLLM: "Available KV cache memory", "Maximum concurrency for N tokens per request". It pads 23 states to 24 and
    each sequence to whole pages, which is not modelled: ours are up to 1.6 % more, never fewer."""
    model = nemotron()
    plan = plan_memory(
        model.groups, model.arch,
        server(model, "h100", 1, "vllm", context=context, kv_dtype="fp8", engine_version=version),
    )  # fmt: skip
    each = answers.sequence_bytes(model, plan, context)
    assert each == 6 * 512 * context + 23 * 2_134_016
    assert posted <= gib * GIB / each <= posted * (1 + within)


@pytest.mark.parametrize(("name", "attention", "mamba"), [(NANO, 6, 23), (SUPER, 8, 40)])
def test_terms_of_layers_with_one_block(name: str, attention: int, mamba: int) -> None:
    """Only attention keeps tokens, only Mamba a state; decoding reads both and writes the state."""
    model = nemotron(name)
    plan = plan_memory(model.groups, model.arch, server(model, gpus=1, engine="vllm", context=8192))
    token = 2 * 2 * 128 * (1 if plan.limits.kv_dtype != "bf16" else 2)
    assert plan.kv.heads == attention * token
    assert plan.kv.state == mamba * state_bytes(model.arch, server(model, gpus=1))
    read = work_of(model.groups, model.arch, plan).kv_read_bytes
    assert read(8192) - read(4096) == attention * token * 4096
    assert read(0) == 2 * plan.kv.state


@pytest.mark.parametrize(("engine", "states"), [("vllm", 4), ("sglang", 5)])
@pytest.mark.parametrize("name", [SUPER, "Qwen3-Next-80B-A3B"])
def test_a_state_is_kept_after_each_draft(name: str, engine: str, states: int) -> None:
    """SGLang posted `(requests + 1) x 4 draft tokens` for three steps, beside each request's own."""
    model = nemotron(name)
    plain, drafting = (
        plan_memory(model.groups, model.arch, server(model, gpus=8, engine=engine, context=8192, mtp_tokens=tokens))
        for tokens in (0, 3)
    )
    assert drafting.kv.heads == pytest.approx(plain.kv.heads * (9 / 8 if name == SUPER else 13 / 12))
    assert drafting.kv.state == states * plain.kv.state > 0
    one = plain.kv.state
    assert [work_of(model.groups, model.arch, plan).kv_read_bytes(0) for plan in (plain, drafting)] == [
        2 * one,
        pytest.approx((states + 1) * one),
    ]
