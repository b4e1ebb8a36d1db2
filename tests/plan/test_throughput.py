"""The speed model: its parts against arithmetic, its shape against common sense, money against the notes' example."""

import random
from typing import Any

import pytest

from halfbyte.errors import UsageError
from halfbyte.plan.cost import REASONING_LENGTHS, breakeven_tokens_per_month, cost_json, prices, tenant_costs
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.throughput import MTP_ACCEPTANCE, Speed, SpeedModel, efficiency
from halfbyte.plan.work import expected_coverage, operand_of, work_of
from halfbyte.plan.workload import Workload

from .models import paper, server

GLM = paper()


def speeds(gpu: str = "b200", **options: object) -> SpeedModel:
    model = GLM
    plan = plan_memory(model.groups, model.arch, server(model, gpu, **options))  # type: ignore[arg-type]
    return SpeedModel(work_of(model.groups, model.arch, plan))


def test_expected_coverage_against_simulation() -> None:
    draw = random.Random(7)
    touched = [len({e for _ in range(32) for e in draw.sample(range(256), 8)}) for _ in range(300)]
    assert expected_coverage(256, 8, 32) == pytest.approx(sum(touched) / len(touched), rel=0.01)
    assert expected_coverage(256, 8, 1) == pytest.approx(8)
    assert expected_coverage(256, 8, 100_000) == pytest.approx(256)


def test_skewed_routing_touches_fewer_experts() -> None:
    even = expected_coverage(64, 4, 20, [1.0] * 64)
    skewed = expected_coverage(64, 4, 20, [1 / (n + 1) for n in range(64)])
    assert even == pytest.approx(expected_coverage(64, 4, 20))
    assert skewed < 0.8 * even


def test_active_parameters_of_a_token() -> None:
    # 18.6 B outside the experts less the embedding, and 8 of 256 experts of 724.8 B: about 40 B, 2 FLOPs each
    whole = plan_memory(GLM.groups, GLM.arch, server(GLM, "mi355x", gpus=1, tp=1))
    flops = sum(work_of(GLM.groups, GLM.arch, whole).flops_per_token.values())
    assert flops == pytest.approx(2 * (18.60e9 - 0.95e9 + 724.78e9 * 8 / 256), rel=0.001)


def test_data_parallel_attention_computes_the_same_total() -> None:
    """Eight ranks with a token each do as much as eight ranks sharing eight tokens, but for what is replicated."""
    shared, own = speeds().work.flops_per_token, speeds(dp=8).work.flops_per_token
    assert own["fp4"] == pytest.approx(8 * shared["fp4"])
    assert own["bf16"] < 8 * shared["bf16"]


def test_four_bit_weights_compute_in_bf16_before_blackwell() -> None:
    h200, b200 = server(GLM, "h200").gpu, server(GLM, "b200").gpu
    assert [operand_of("nvfp4", gpu) for gpu in (h200, b200)] == ["bf16", "fp4"]
    assert operand_of("int4", b200) == "bf16"
    assert operand_of("fp8-block", server(GLM, "a100").gpu) == "bf16"


def test_sparse_attention_reads_selected_tokens_and_all_index_keys() -> None:
    work = speeds().work
    assert work.kv_read_bytes(100_000) == 2048 * 78 * 576 + 100_000 * 21 * 132
    assert work.kv_read_bytes(1000) == 1000 * 47_700


def test_the_indexer_makes_long_prefill_quadratic() -> None:
    work = speeds().work
    short, long = (work.attention_flops(n, n) for n in (100_000, 200_000))
    indexer = 2 * 21 * 100_000 * 50_000 * 32 * 128
    assert short > indexer
    assert 2 < long / short < 4


def test_shape_of_the_model() -> None:
    model = speeds()
    assert model.decode_step_ms(1, 4096) < model.decode_step_ms(64, 4096) < model.decode_step_ms(64, 400_000)
    assert model.prefill_ms(1000) < model.prefill_ms(100_000) / 10
    assert model.prefill_ms(100_000, cached=90_000) < model.prefill_ms(100_000) / 2
    one, many = model.at(1, 8192, 1024), model.at(64, 8192, 1024)
    assert one.tpot_ms < many.tpot_ms
    assert one.output_tokens_per_s < many.output_tokens_per_s
    assert many.requests_per_s * 1024 == pytest.approx(many.output_tokens_per_s)


def test_drafts_pay_by_acceptance() -> None:
    drafted = speeds(mtp_tokens=3)
    p = MTP_ACCEPTANCE
    assert drafted.tokens_per_step == pytest.approx(1 + p + p**2 + p**3)
    assert 3.45 < drafted.tokens_per_step < 3.55  # posted accepted lengths: 3.48 and 3.52
    assert drafted.at(1, 1024, 1024).tpot_ms < speeds().at(1, 1024, 1024).tpot_ms / 2


def test_the_slo_edge() -> None:
    model = speeds()
    best = model.at_slo(512, 8192, 1024, 5000, 40)
    assert best is not None
    assert best.tpot_ms <= 40 < model.at(best.concurrency + 1, 8192, 1024).tpot_ms
    assert model.at_slo(512, 8192, 1024, 5000, 0.1) is None


def test_unfitted_hardware_says_so() -> None:
    assert efficiency("sglang", "sm100").fitted
    assert not efficiency("vllm", "sm90").fitted
    one_row = efficiency("sglang", "sm90")
    assert one_row.fitted
    assert one_row.decode_spread == efficiency("none", "none").decode_spread  # a row that fits itself has no spread


def test_the_notes_price_example() -> None:
    # 8 x $4, 1,501 output tokens/s, all cost on output: $5.92 at 100 %, $11.85 at 50 %, $29.6 at 20 %
    speed = Speed(32, 0, 0, 1501, 0, 1)
    for share, want in ((1.0, 5.92), (0.5, 11.84), (0.2, 29.61)):
        assert prices(32, speed, 1.0, share).output == pytest.approx(want, abs=0.01)


def test_reasoning_is_part_of_the_output() -> None:
    speed = Speed(32, 0, 0, 1000, 8000, 1)
    plain, hidden = prices(32, speed, 10, 0.5), prices(32, speed, 10, 0.5, reasoning_share=0.75)
    assert hidden.output == plain.output
    assert hidden.visible == pytest.approx(4 * plain.output)
    paid = (plain.input * 8000 + plain.output * 1000) * 3600 / 1e6
    assert paid == pytest.approx(32 / 0.5)  # tokens at full rate cost the pool twice over at half use


def test_tenants_pay_for_the_whole_pool() -> None:
    costs = tenant_costs(1000, 0.6, {"a": 30, "b": 10}, {"a": 1, "b": 1, "c": 2})
    assert sum(costs.values()) == pytest.approx(1000)
    assert costs == pytest.approx({"a": 550, "b": 250, "c": 200})
    with pytest.raises(UsageError):
        tenant_costs(1000, 0.6, {}, {"a": 1})


def test_cost_document() -> None:
    model = speeds()
    found = cost_json(model, model.at(32, 8192, 1024), Workload(reasoning_share=0.8, api_price=3.0), price=4.0)
    assert found["pool_per_hour"] == 32
    by_length = found["usd_per_request_by_output_tokens"]
    assert list(by_length) == [str(n) for n in REASONING_LENGTHS]
    assert by_length["37000"] > 10 * by_length["1000"]
    assert found["breakeven"]["output_tokens_per_month"] == round(breakeven_tokens_per_month(32, 3.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"price": -1.0}, {"price": float("nan")}, {"utilisation": 0.0}, {"reasoning_share": 1.0}, {"api_price": 0.0},
        {"slo_tpot_ms": float("inf")}, {"input_tokens": 0}, {"routing": (1.0, float("nan"))}, {"routing": (0.0, 0.0)},
    ],
)  # fmt: skip
def test_a_workload_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Workload(**bad)


def test_two_all_reduces_a_layer_cross_the_links() -> None:
    """Ring all-reduce: each of n ranks sends 2 (n - 1) / n of a message. Here 8,192 tokens of 6,144 BF16 numbers."""
    model = speeds()
    slow_gpu = model.gpu.model_copy(update={"link_gb_s": model.gpu.link_gb_s / 2})
    slow = speeds()
    slow.gpu = slow_gpu
    message = 8192 * 6144 * 2
    seconds = 78 * 2 * (2 * 7 / 8) * message / (model.gpu.link_gb_s * 1e9)
    assert slow.prefill_ms(8192) - model.prefill_ms(8192) == pytest.approx(1e3 * seconds, rel=1e-6)
