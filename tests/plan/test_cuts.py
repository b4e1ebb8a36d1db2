"""A plan never says that fits what no engine loads: blocks of 16 cut by tensor parallelism."""

from typing import Any

import pytest
from families.configs import config

from halfbyte.errors import UsageError
from halfbyte.plan.cuts import check_cuts, cut_warnings, whole_cuts
from halfbyte.plan.planner import plan_deployment
from halfbyte.plan.target import PlannedModel, on_paper
from halfbyte.plan.workload import Workload

from .models import server

AIR = {"hidden_size": 4096, "moe_intermediate_size": 1408, "n_routed_experts": 128, "num_hidden_layers": 46}


def air(recipe: str = "nvfp4-routed-experts") -> PlannedModel:
    return on_paper("GLM-4.5-Air", config("GLM-4.7") | AIR | {"intermediate_size": 10944}, recipe)


def test_a_cut_block_is_refused_with_what_is_possible() -> None:
    model = air()
    with pytest.raises(UsageError, match="1408 over 16 ranks leave 88") as caught:
        plan_deployment(model, server(model, gpus=16), Workload())
    assert "--ep 16" in (caught.value.hint or "")


def test_whole_experts_are_fine_on_as_many_ranks() -> None:
    model = air()
    layouts: dict[str, dict[str, Any]] = {"sglang": {"tp": 16, "ep": 16}, "vllm": {"tp": 1, "dp": 16, "ep": 16}}
    for engine, layout in layouts.items():
        found = plan_deployment(model, server(model, gpus=16, engine=engine, **layout), Workload())
        assert found.memory.fits
        assert not [warning for warning in found.warnings if "multiple of 64" in warning]


@pytest.mark.parametrize(("engine", "version"), [("sglang", "SGLang 0.5.23"), ("vllm", "vLLM 0.33.0")])
def test_what_kernels_pad_or_refuse_is_warned_of(engine: str, version: str) -> None:
    model = air()
    warnings = plan_deployment(model, server(model, gpus=4, engine=engine), Workload()).warnings
    assert any("352 a rank, no multiple of 64" in warning and version in warning for warning in warnings)
    assert cut_warnings(model.groups, model.arch, server(model, gpus=2, engine=engine)) == []


def test_only_what_is_packed_is_checked() -> None:
    check_cuts(air("bf16").groups, air("bf16").arch, server(air("bf16"), gpus=16))
    with pytest.raises(UsageError, match="shared_expert"):
        check_cuts(air("nvfp4-experts-and-shared").groups, air().arch, server(air(), gpus=16, tp=16, ep=16))


def test_numbers_of_ranks_that_keep_blocks_whole() -> None:
    assert whole_cuts(1408) == [1, 2, 4, 8, 11, 22, 44, 88]
    assert whole_cuts(2048)[:8] == [1, 2, 4, 8, 16, 32, 64, 128]


def test_fp8_tiles_are_cut_by_vllm_and_refused_by_sglang() -> None:
    model = air("fp8-block")
    with pytest.raises(UsageError, match="cuts a tile of 128: SGLang"):
        check_cuts(model.groups, model.arch, server(model, gpus=4))
    for d in (server(model, gpus=4, engine="vllm"), server(model, gpus=4, ep=4), server(model, "mi300x", gpus=4)):
        check_cuts(model.groups, model.arch, d)
