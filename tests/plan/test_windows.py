"""Models whose layers differ: sliding windows are planned, what has no model is refused."""

from typing import Any

import pytest
from families.configs import config

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.plan import answers
from halfbyte.plan.kv import kv_stage
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.target import PlannedModel, on_paper
from halfbyte.plan.work import work_of

from .models import server


def gpt_oss(**changes: Any) -> PlannedModel:
    values = {
        "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 36, "intermediate_size": 2880,
        "num_local_experts": 128, "num_experts_per_tok": 4, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 201088, "max_position_embeddings": 131072, "attention_bias": True,
        "sliding_window": 128, "quantization_config": {"quant_method": "mxfp4"},
    }  # fmt: skip
    return on_paper("gpt-oss-120b", {**values, **changes}, None)


OSS = gpt_oss()
LAYER = 2 * 8 * 64 * 2  # K and V of eight heads of 64, two bytes each


def test_half_of_gpt_oss_slides() -> None:
    assert OSS.arch.sliding == frozenset(range(0, 36, 2))
    assert OSS.arch.window == 128
    listed = gpt_oss(layer_types=["full_attention"] * 30 + ["sliding_attention"] * 6)
    assert listed.arch.sliding == frozenset(range(30, 36))


def test_vllm_keeps_the_window_and_a_chunk() -> None:
    d = server(OSS, "h200", 1, "vllm", chunk=8192)
    stage = kv_stage(OSS.arch, d, d.limits(OSS.arch), range(36), last=True)
    assert stage.sized_bytes == pytest.approx(18 * LAYER + 18 * LAYER * (127 + 8192) / 131072)
    older = server(OSS, "h200", 1, "vllm", chunk=8192, engine_version="0.9.2")
    assert kv_stage(OSS.arch, older, older.limits(OSS.arch), range(36), last=True).sized_bytes == 36 * LAYER


def test_sglang_sizes_a_second_pool_by_ratio() -> None:
    d = server(OSS, "h200", 1)
    stage = kv_stage(OSS.arch, d, d.limits(OSS.arch), range(36), last=True)
    assert stage.sized_bytes == pytest.approx(18 * LAYER * 1.8)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_sequences_fill_the_pool_and_no_more(engine: str) -> None:
    plan = plan_memory(OSS.groups, OSS.arch, server(OSS, "h200", 1, engine, chunk=8192))
    for context in (2048, 30_000, 131_072):
        count = answers.max_concurrency(OSS, plan, context)
        tokens = -(-context // 16) * 16
        each = answers.sequence_bytes(OSS, plan, tokens)
        assert count * each <= plan.kv_bytes < (count + 1) * each
    most = answers.max_context(OSS, plan, 40)
    assert answers.max_concurrency(OSS, plan, most) >= 40 > answers.max_concurrency(OSS, plan, most + 64)


def test_decoding_reads_windows_only() -> None:
    plan = plan_memory(OSS.groups, OSS.arch, server(OSS, "h200", 1, "vllm"))
    assert work_of(OSS.groups, OSS.arch, plan).kv_read_bytes(100_000) == 18 * LAYER * 100_000 + 18 * LAYER * 128


def test_kinds_without_a_model_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="'linear_attention' has no model"):
        gpt_oss(layer_types=["linear_attention"] * 36)
    with pytest.raises(CheckpointError, match="layer_types has not one entry"):
        gpt_oss(layer_types=["full_attention"])
    with pytest.raises(UnsupportedError, match="softmax"):
        on_paper("m", {**config("MiniMax-M2.5"), "attn_type_list": [1, 0]}, "bf16")
    with pytest.raises(UnsupportedError, match="which layers"):
        on_paper("q", {**config("Qwen3-30B-A3B"), "use_sliding_window": True}, "bf16")
    with pytest.raises(UnsupportedError, match="kimi_linear"):
        on_paper("q", {**config("Qwen3-30B-A3B"), "model_type": "kimi_linear"}, "bf16")
