"""Every formula against GLM-5.2 numbers computed by hand from docs/engines.md (chapters 5 to 8)."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from halfbyte.engines.server import GIB, MIB
from halfbyte.errors import UsageError
from halfbyte.plan import answers
from halfbyte.plan.activations import draft_terms, forward_terms, graph_term, logits_term, sparse_terms
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.kv import kv_stage, tokens_in
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.terms import PHASES, PREFILL, Term, phase_bytes
from halfbyte.plan.weights import rank_weights, stages

from .models import paper, server

GLM = paper()


def named(terms: Sequence[Term], name: str) -> float:
    return float(next(term.bytes for term in terms if term.name == name))


def test_weights_of_tensor_parallel_ranks() -> None:
    tp8 = rank_weights(GLM.groups, GLM.arch, server(GLM, mtp_tokens=1))[0]
    assert (tp8.main - tp8.absorbed) / 1e9 == pytest.approx(58.4, abs=0.05)
    assert (tp8.main - tp8.absorbed) / GIB == pytest.approx(54.4, abs=0.05)
    assert tp8.replicated / 1e9 == pytest.approx(3.14, abs=0.01)
    assert tp8.absorbed / 1e9 == pytest.approx(0.29, abs=0.005)
    assert tp8.draft / 1e9 == pytest.approx(2.7, abs=0.05)
    tp4 = rank_weights(GLM.groups, GLM.arch, server(GLM, gpus=4, mtp_tokens=1))[0]
    assert (tp4.main - tp4.absorbed) / 1e9 == pytest.approx(113.6, abs=0.05)
    assert tp4.draft / 1e9 == pytest.approx(5.1, abs=0.05)


def test_weights_under_data_parallel_attention() -> None:
    rank = rank_weights(GLM.groups, GLM.arch, server(GLM, dp=8))[0]
    assert (rank.main - rank.absorbed) / 1e9 == pytest.approx(80.4, abs=0.1)


def test_expert_parallel_ranks_hold_whole_experts() -> None:
    tp, ep = (rank_weights(GLM.groups, GLM.arch, server(GLM, ep=n))[0].main for n in (1, 8))
    assert tp == ep  # 256 / 8 whole experts are as many bytes as all experts in eighths


def test_vllm_copies_kv_b_only_when_it_is_quantized() -> None:
    assert rank_weights(GLM.groups, GLM.arch, server(GLM, engine="vllm"))[0].absorbed == 0
    fp8 = paper("GLM-5.2-FP8", None)
    assert rank_weights(fp8.groups, fp8.arch, server(fp8, engine="vllm"))[0].absorbed / 1e9 == pytest.approx(
        0.286, abs=0.001
    )


def test_pipeline_stages_follow_vllm() -> None:
    assert [len(stage) for stage in stages(GLM.arch, 2)] == [39, 39]
    assert [len(stage) for stage in stages(paper("Qwen3-235B-A22B", "bf16").arch, 4)] == [23, 24, 24, 23]


@pytest.mark.parametrize(
    ("gpu", "engine", "dtype", "plain", "mtp"),
    [
        ("b200", "sglang", "fp8", 47_700, 48_408),
        ("h200", "sglang", "fp8", 53_940, 54_728),
        ("rtxpro6000", "vllm", "fp8", 53_940, 54_728),
        ("h200", "sglang", "bf16", 92_628, 93_912),
        ("b200", "vllm", "nvfp4_ds_mla", 30_228, 30_712),
    ],
)
def test_kv_bytes_per_token(gpu: str, engine: str, dtype: str, plain: int, mtp: int) -> None:
    for drafts, want in ((0, plain), (3, mtp)):
        d = server(GLM, gpu, engine=engine, kv_dtype=dtype, mtp_tokens=drafts)
        assert kv_stage(GLM.arch, d, d.limits(GLM.arch), range(78), last=True).token_bytes == want


def test_kv_of_other_attention_kinds() -> None:
    deepseek = paper("DeepSeek-V3", None)
    fp8 = server(deepseek, kv_dtype="fp8")
    assert kv_stage(deepseek.arch, fp8, fp8.limits(deepseek.arch), range(61), last=True).token_bytes == 61 * 576
    qwen = paper("Qwen3-30B-A3B", None)
    # four KV heads on eight ranks: each rank keeps one
    for gpus, heads in ((1, 4), (8, 1)):
        d = server(qwen, gpus=gpus)
        found = kv_stage(qwen.arch, d, d.limits(qwen.arch), range(48), last=True)
        assert found.token_bytes == 48 * 2 * heads * 128 * 2


def test_decode_context_parallelism_spreads_tokens() -> None:
    vllm = server(GLM, "rtxpro6000", engine="vllm", dcp=8, kv_dtype="fp8")
    sglang = server(GLM, "b200", dcp=8)
    for d, want in ((vllm, 53_940 / 8), (sglang, 78 * 576 / 8 + 21 * 132)):
        assert kv_stage(GLM.arch, d, d.limits(GLM.arch), range(78), last=True).token_bytes == want


def test_tokens_are_whole_pages() -> None:
    assert tokens_in(85.3 * GIB, 48_408) == int(85.3 * GIB / 48_408) // 64 * 64
    assert tokens_in(85.3 * GIB, 48_408) == pytest.approx(1.89e6, rel=0.01)
    assert tokens_in(-1.0, 48_408) == tokens_in(48_408 * 63, 48_408) == 0


def test_prefill_buffers_of_the_cards_chunk() -> None:
    d = server(GLM, chunk=131072, fraction=0.80)
    terms = forward_terms(GLM.arch, d, 131072, (PREFILL,))
    tokens, hidden = 131072, 6144
    assert named(terms, "hidden states") == 4 * tokens * hidden
    assert named(terms, "attention projections") == 2 * tokens * 2624 + 2 * tokens * 8 * 512
    assert named(terms, "absorbed query and latent output") == 2 * tokens * 64 / 8 * (576 + 512)
    assert named(terms, "expert gate and up output") == 2 * tokens * 8 * 4096 / 8
    assert named(terms, "expert output before merging") / 1e9 == pytest.approx(12.9, abs=0.05)
    assert named(terms, "packed expert input") == 0.5625 * tokens * hidden
    assert named(terms, "shared expert") == 2 * tokens * 4096 / 8
    sparse = sparse_terms(GLM.arch, d, d.limits(GLM.arch), tokens)
    assert named(sparse, "top-k indices") / 1e9 == pytest.approx(1.07, abs=0.005)


def test_workspaces_logits_and_graphs() -> None:
    vllm = server(GLM, engine="vllm", max_sequences=512)
    settled = vllm.limits(GLM.arch)
    workspace = named(sparse_terms(GLM.arch, vllm, settled, 8192), "sparse prefill workspace")
    assert workspace == 2 * 1_048_576 * 1152 + 16 * 1_048_576 * 132  # the notes' 2.4 GB and the gather buffer beside it
    short = replace(vllm, context=131072)
    assert named(sparse_terms(GLM.arch, short, settled, 8192), "sparse prefill workspace") == 131072 * 5 * (
        1152 + 8 * 132
    )
    one_copy = logits_term(GLM.arch, vllm, 512).bytes / 5
    assert one_copy / 1e6 == pytest.approx(317, abs=0.5)
    sglang = server(GLM, mtp_tokens=5)
    assert graph_term(sglang, sglang.limits(GLM.arch)).bytes == 1.5 * GIB + 2 * MIB * 512 * 6
    assert graph_term(replace(sglang, graph_batch=0), replace(sglang, graph_batch=0).limits(GLM.arch)).bytes == 0
    assert named(draft_terms(GLM.arch, sglang, 1000), "draft input") == 2 * 1000 * 3 * 6144
    assert draft_terms(GLM.arch, server(GLM), 1000) == []


def test_sglang_default_fraction() -> None:
    # (total - reserved) / total, reserved = 512 + 1.5 * 8192 + 1024 + 2 * 512 + 1536 MiB on eight H200 with 8192
    settled = server(GLM, "h200", chunk=8192).limits(GLM.arch)
    total = 139.8 * 1024
    assert settled.fraction == pytest.approx((total - (512 + 12288 + 1024 + 1024 + 1536)) / total, abs=0.001)
    # the card's chunk would reserve 192 GB: the formula goes to its floor, so the card must set 0.80 by hand
    assert server(GLM, chunk=131072).limits(GLM.arch).fraction == 0.05
    assert server(GLM, engine="vllm").limits(GLM.arch).fraction == 0.92


def test_the_cards_setting_fits_b200_with_little_to_spare() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, chunk=131072, fraction=0.80))
    outside = (1 - 0.80) * (plan.usable_bytes - 1.65 * GIB) / GIB
    assert outside == pytest.approx(36, abs=1)  # the notes: about 36 GiB for everything non-static
    assert plan.fits
    assert plan.peak_phase == "prefill"
    assert 0 < plan.headroom_bytes / GIB < 15
    assert not plan_memory(GLM.groups, GLM.arch, server(GLM, chunk=262144, fraction=0.80)).fits


def test_sglang_budget_is_free_memory_times_fraction_less_weights() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, fraction=0.8, mtp_tokens=3))
    budget = 0.8 * (178.35 - 1.65) * GIB - plan.weights.main  # the draft layer is loaded after the pool is sized
    assert plan.kv_tokens == tokens_in(budget, 48_408)


def test_vllm_budget_contains_the_profiled_peak_and_the_draft() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, engine="vllm", fraction=0.9, mtp_tokens=3))
    inside = [
        t for t in plan.terms if t.profiled and not t.name.startswith(("weights", "KV", "process", "comm", "repack"))
    ]
    peak = max(phase_bytes(inside, phase) for phase in PHASES)
    budget = 0.9 * 178.35 * GIB - plan.weights.main - plan.weights.draft - peak
    forecast = 2 * named(list(plan.terms), "CUDA graphs")
    assert plan.kv_tokens == tokens_in(budget - forecast, 48_408)
    older = replace(plan.deployment, engine_version="0.19.1")  # graphs lie outside the utilization
    assert plan_memory(GLM.groups, GLM.arch, older).kv_tokens == tokens_in(budget, 48_408)


def test_peak_is_the_largest_phase_and_terms_add_up() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM))
    assert set(plan.peaks) == set(PHASES)
    assert plan.peak_bytes == max(phase_bytes(list(plan.terms), phase) for phase in PHASES)
    weights = sum(term.bytes for term in plan.terms if term.name.startswith("weights"))
    assert weights == pytest.approx(plan.weights_bytes)
    kv = sum(term.bytes for term in plan.terms if term.name.startswith("KV"))
    assert kv == pytest.approx(plan.kv_bytes)
    assert all(term.formula and term.source for term in plan.terms)


def test_the_formula_of_a_weight_term_adds_up() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM))
    attention = next(term for term in plan.terms if term.name == "weights: attention")
    total = 0.0
    for part in attention.formula.split(" + "):
        size, ranks = part.split(" GB / ")
        total += float(size) * 1e9 / int(ranks)
    assert attention.formula.count("/") == 2  # the down projections whole, the rest by eight
    assert total == pytest.approx(attention.bytes, rel=1e-3)


def test_unfit_plans_say_why() -> None:
    h100 = plan_memory(GLM.groups, GLM.arch, server(GLM, "h100", engine="vllm"))
    assert not h100.fits
    assert "vLLM refuses to start" in h100.problems[0]
    bf16 = paper("GLM-5.2", "bf16")
    problem = plan_memory(bf16.groups, bf16.arch, server(bf16, "h200")).problems[0]
    assert "weights of" in problem
    greedy = plan_memory(GLM.groups, GLM.arch, server(GLM, concurrency=1000))
    assert "1000 sequences want" in greedy.problems[0]


def test_one_overflow_is_named_the_largest() -> None:
    plan = plan_memory(GLM.groups, GLM.arch, server(GLM, fraction=0.99))
    (problem,) = plan.problems
    assert problem.startswith("prefill peaks at")
    assert problem.endswith("over in decode, graph capture as well")


def test_without_a_pool_the_buffers_are_those_of_the_chunk_asked_for() -> None:
    def prefill_bytes(chunk: int) -> float:
        plan = plan_memory(GLM.groups, GLM.arch, server(GLM, "h100", gpus=4, chunk=chunk))
        assert plan.kv_tokens == 0
        return plan.peaks["prefill"]

    assert prefill_bytes(16384) > prefill_bytes(8192)


def test_mxfp4_experts_are_padded_by_the_kernel() -> None:
    # gpt-oss-120b on one H100: posted 65.97 GiB loaded from a 60.8 GiB checkpoint
    config = {
        "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 36, "intermediate_size": 2880,
        "num_local_experts": 128, "num_experts_per_tok": 4, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 201088, "max_position_embeddings": 131072, "attention_bias": True,
        "quantization_config": {"quant_method": "mxfp4"},
    }  # fmt: skip
    from halfbyte.plan.target import on_paper

    model = on_paper("gpt-oss-120b", config, None)
    assert model.checkpoint_bytes / 1e9 == pytest.approx(65.25, rel=0.002)
    rank = rank_weights(model.groups, model.arch, server(model, "h100", 1, "vllm"))[0]
    assert rank.main / GIB == pytest.approx(65.97, rel=0.002)


def test_load_takes_a_second_copy_for_a_moment() -> None:
    rtx = plan_memory(GLM.groups, GLM.arch, server(GLM, "rtxpro6000"))
    experts = 75 * 256 * 3 * (2048 * 6144 * 9 // 16 + 8) / 8
    assert named(list(rtx.terms), "swizzled scales at load") == pytest.approx(experts / 9)
    assert named(list(rtx.terms), "repacking at load") == pytest.approx(experts / 75)
    b200 = plan_memory(GLM.groups, GLM.arch, server(GLM))
    assert "swizzled scales at load" not in {term.name for term in b200.terms}


def test_graphs_lie_in_the_budget_from_vllm_0_20_on() -> None:
    for version, given, want in (
        (None, None, 2.0), ("0.20.1", None, 2.0), ("v0.19.1", None, 0.0), ("0.25.1+cu129", False, 0.0),
        ("0.19.1", True, 2.0), ("0.0.0+local (fork)", None, 2.0),
    ):  # fmt: skip
        d = server(GLM, engine="vllm", engine_version=version, forecast_graphs=given)
        assert d.facts.graph_forecast(d) == want
    assert server(GLM).facts.graph_forecast(server(GLM)) == 0


def test_sm120_scores_a_whole_chunk() -> None:
    d = server(GLM, "rtxpro6000", engine="vllm", context=202_752, chunk=8192)
    terms = sparse_terms(GLM.arch, d, d.limits(GLM.arch), 8192)
    assert named(terms, "indexer logits") == 4 * 8192 * 202_752
    assert "sparse prefill workspace" not in {term.name for term in terms}
    hopper = replace(d, gpu=find_gpu("h200"))
    assert named(sparse_terms(GLM.arch, hopper, hopper.limits(GLM.arch), 8192), "indexer logits") == 512 * MIB


def test_a_draft_model_of_its_own() -> None:
    plain, drafted = (
        plan_memory(GLM.groups, GLM.arch, server(GLM, **options))
        for options in ({"mtp_tokens": 3}, {"mtp_tokens": 3, "draft_gib": 0.5})
    )
    assert drafted.weights.draft == 0.5 * GIB < plain.weights.draft
    assert drafted.kv.latent == plain.kv.latent  # one layer more, as with MTP
    assert drafted.kv.index == plain.kv.index - 132  # without an indexer
    with pytest.raises(UsageError, match="without draft tokens"):
        server(GLM, draft_gib=0.5)
    deepseek = paper("Qwen3-30B-A3B", None)
    with pytest.raises(UsageError, match="no MTP layer"):
        server(deepseek, gpus=4, mtp_tokens=3)
    assert server(deepseek, gpus=4, mtp_tokens=3, draft_gib=0.0).mtp_tokens == 3


def test_any_server_is_a_sum() -> None:
    """Random servers of every family: phases are sums of terms, pools lie inside the GPU, more memory never hurts."""
    draw, fitting = random.Random(7), 0
    names = ["GLM-5.2", "DeepSeek-V3", "DeepSeek-V3.2", "Qwen3-235B-A22B", "MiniMax-M2.5", "Mixtral-8x22B-v0.1"]
    models = [paper(name, recipe) for name in names for recipe in ("fp8-block", "nvfp4-mlp")]
    for _ in range(60):
        model, gpu = draw.choice(models), draw.choice(["h100", "h200", "b200", "rtxpro6000", "mi355x", "b300"])
        options: dict[str, Any] = {
            "engine": draw.choice(["sglang", "vllm"]),
            "context": draw.choice([4096, 32768]),
            "chunk": draw.choice([None, 2048, 32768]),
            "fraction": draw.choice([None, 0.8, 0.9]),
            "engine_version": draw.choice([None, "0.8.1", "0.11.0", "0.25.0"]),
            "graph_batch": draw.choice([None, 0, 64]),
        }
        d = server(model, gpu, draw.choice([4, 8]), **options)
        try:
            plan = plan_memory(model.groups, model.arch, d)
        except UsageError as error:  # Qwen3-235B-A22B in FP8 blocks: experts of 1,536 over eight ranks of SGLang
            if "cuts a tile of 128" not in error.message:
                raise
            continue
        for phase, peak in plan.peaks.items():
            assert peak == sum(term.bytes for term in plan.terms if phase in term.phases)
        assert all(term.bytes >= 0 for term in plan.terms)
        assert plan.fits == (not plan.problems)
        if plan.fits:
            fitting += 1
            assert plan.peak_bytes <= plan.usable_bytes
            assert plan.weights_bytes + plan.kv_bytes <= plan.usable_bytes
            bigger = replace(d, gpu=d.gpu.model_copy(update={"memory_gib": d.gpu.memory_gib + 8}))
            more = plan_memory(
                model.groups, model.arch, replace(bigger, fraction=plan.limits.fraction, chunk=plan.limits.chunk)
            )
            assert more.kv_tokens >= plan.kv_tokens
        else:
            change = answers.smallest_change(model, plan)
            assert change is None or change.plan.fits
    assert 10 < fitting < 60


KEPT_BY_SEQUENCE = [
    "GLM-5.2", "MiMo-V2-Flash-BF16", "Qwen3-Next-80B-A3B", "DeepSeek-V4-Flash-BF16", "Nemotron-3-Super-120B-A12B",
]  # fmt: skip


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize("name", KEPT_BY_SEQUENCE)
def test_the_pool_is_the_sum_of_its_terms(name: str, engine: str) -> None:
    """Whatever a sequence keeps, by token, by window or once, is a term."""
    model = paper(name)
    plan = plan_memory(model.groups, model.arch, server(model, gpus=8, engine=engine, context=8192))
    pool = sum(term.bytes for term in plan.terms if term.name.startswith("KV cache"))
    assert pool == pytest.approx(plan.kv_tokens * plan.kv.token_bytes)
    states = any(term.name == "KV cache: state of a sequence" for term in plan.terms)
    assert states is (name in KEPT_BY_SEQUENCE[2:])


def test_deepseek_v4_keeps_windows_compressed_keys_and_what_they_are_made_of() -> None:
    """V4-Flash: 43 windows; a key of 584 bytes for 4 tokens in 21 layers, for 128 in 20; indexers' of 132 bytes."""
    model = paper("DeepSeek-V4-Flash-BF16")
    kv = plan_memory(model.groups, model.arch, server(model, gpus=8, context=131072)).kv
    assert kv.latent == 21 * 584 / 4 + 20 * 584 / 128
    assert kv.index == 21 * 132 / 4
    assert kv.sliding == 43 * 584
    # values and gates in float32: two groups of four keys, twice as wide; one of 128; the indexers' like the first
    assert kv.state == 2 * 4 * (21 * 8 * 1024 + 20 * 128 * 512 + 21 * 8 * 256)


def test_the_reserve_is_a_twentieth_of_the_prefill_buffers() -> None:
    terms = plan_memory(GLM.groups, GLM.arch, server(GLM)).terms
    lasting = ("weights", "KV cache", "process context", "communicators", "allocator reserve")
    buffers = [term for term in terms if PREFILL in term.phases and not term.name.startswith(lasting)]
    assert len(buffers) == 12
    assert named(terms, "allocator reserve") == pytest.approx(0.05 * sum(term.bytes for term in buffers))
