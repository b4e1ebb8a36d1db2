"""The arithmetic: grid, factor, column loop, descent, one expert."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from halfbyte.errors import NonFiniteError
from halfbyte.nvfp4 import reference
from halfbyte.quantize.gptq.columns import nearest_rounded, rounded
from halfbyte.quantize.gptq.descent import descended
from halfbyte.quantize.gptq.expert import output_errors, rounded_expert
from halfbyte.quantize.gptq.factor import damped, factorised
from halfbyte.quantize.gptq.grid import packed, shared_scale_2
from halfbyte.quantize.gptq.hessian import mixed, second_moment
from halfbyte.quantize.gptq.settings import Settings


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated(seed: int, rows: int, columns: int) -> Tensor:
    return normal(seed, rows, columns // 4) @ normal(seed + 1, columns // 4, columns) + 0.3 * normal(
        seed + 2, rows, columns
    )


def cost(weight: Tensor, values: Tensor, hessian: Tensor) -> float:
    error = weight - values
    return float(((error @ hessian) * error).sum())


def test_the_max_rule_here_is_the_reference_byte_for_byte() -> None:
    weight = normal(0, 24, 96).bfloat16().float()
    weight[3, 16:32] = 0
    weight[4, :4] = torch.tensor([0.25, 0.75, -1.25, -2.5])
    ours = nearest_rounded(weight, shared_scale_2(weight, 1.0))
    wanted = reference.encode(weight.numpy())
    assert np.array_equal(packed(ours.codes).numpy(), wanted.codes)
    assert np.array_equal(ours.scales.numpy(), wanted.scales)
    assert np.array_equal(ours.dequantized().numpy(), reference.decode(wanted))


def test_without_correlation_it_is_the_sweep_byte_for_byte() -> None:
    weight = normal(1, 16, 64).bfloat16().float()
    scale_2 = shared_scale_2(weight, 1.0)
    ours = rounded(weight, factorised(torch.eye(64), 0.0), scale_2)
    wanted = reference.encode(weight.numpy(), np.float32(scale_2), "sweep")
    theirs = torch.from_numpy(reference.decode(wanted))
    assert cost(weight, ours.dequantized(), torch.eye(64)) == pytest.approx(
        cost(weight, theirs, torch.eye(64)), rel=1e-5
    )


def test_the_factor_is_the_damped_hessian() -> None:
    hessian = second_moment(correlated(2, 400, 48), "x")
    factor = factorised(hessian, 0.01)
    upper = torch.zeros(48, 48)
    for b in range(3):
        own = slice(16 * b, 16 * b + 16)
        block = factor.inner[b] * factor.weight[b].sqrt()
        upper[: 16 * b, own] = factor.carry[: 16 * b, own] @ block
        upper[own, own] = block
    assert torch.allclose(upper @ upper.t(), damped(hessian, 0.01), atol=1e-4)


@pytest.mark.parametrize("columns", [32, 160, 272])
def test_compensation_and_descent_each_lower_the_cost(columns: int) -> None:
    weight, x = normal(3, 32, columns), correlated(4, 600, columns)
    hessian = second_moment(x, "x")
    scale_2 = shared_scale_2(weight, 1.0)
    plain = rounded(weight, factorised(torch.eye(columns), 0.0), scale_2)
    factor = factorised(hessian, 0.01)
    first = rounded(weight, factor, scale_2)
    whole = damped(hessian, factor.damping)
    after = [cost(weight, descended(weight, first, hessian, 0.01, n).dequantized(), whole) for n in (0, 1, 2)]
    assert after[0] < 0.8 * cost(weight, plain.dequantized(), whole)
    assert after[1] < after[0]
    assert after[2] <= after[1]


def test_the_column_loop_equals_one_column_at_a_time() -> None:
    """A plain LDLQ over all columns, given the scales that the loop chose."""
    weight, hessian = normal(5, 8, 160), second_moment(correlated(6, 500, 160), "x")
    ours = rounded(weight, factorised(hessian, 0.01), shared_scale_2(weight, 1.0))
    upper = torch.linalg.cholesky(damped(hessian, 0.01).flip(0, 1)).flip(0, 1).double()
    error = torch.zeros(8, 160, dtype=torch.float64)
    values = ours.dequantized().double()
    for k in range(160):
        target = weight[:, k].double() + error[:, :k] @ upper[:k, k] / upper[k, k]
        step = values[:, k] / torch.where(ours.codes[:, k] == 0, 1.0, ours.codes[:, k]).double()
        nonzero = ours.codes[:, k] != 0
        away = (target - values[:, k]).abs()[nonzero]
        widest = torch.where(ours.codes[:, k].abs() >= 4, 1.0, 0.5)[nonzero] * step[nonzero].abs()
        saturated = ours.codes[:, k].abs()[nonzero] == 6
        assert (away[~saturated] <= widest[~saturated] * 1.001 + 1e-6).all()
        error[:, k] = weight[:, k].double() - values[:, k]


def test_singular_and_empty_hessians_and_dead_inputs() -> None:
    weight = normal(7, 8, 64)
    scale_2 = shared_scale_2(weight, 1.0)
    three = normal(8, 3, 64)
    three[:, 5:20] = 0
    for x in (three, three[:0], torch.zeros(9, 64)):
        for damping in (0.01, 0.0):
            result = rounded(weight, factorised(second_moment(x, "x"), damping), scale_2)
            assert result.dequantized().isfinite().all()
    dead = rounded(weight, factorised(second_moment(torch.zeros(9, 64), "x"), 0.01), scale_2)
    plain = rounded(weight, factorised(torch.eye(64), 0.0), scale_2)
    assert torch.equal(dead.dequantized(), plain.dequantized())


def test_the_prior_counts_as_so_many_tokens() -> None:
    own, prior = torch.eye(4), 3 * torch.eye(4)
    assert torch.equal(mixed(own, 0, prior, 64), prior)
    assert torch.equal(mixed(own, 64, prior, 64), 2 * torch.eye(4))
    assert torch.equal(mixed(own, 0, prior, 0), own)


@pytest.mark.parametrize("tokens", [0, 3, 400])
def test_an_expert_of_any_coverage(tokens: int) -> None:
    gate_up, down = 0.1 * normal(9, 64, 48), 0.1 * normal(10, 48, 32)
    sample = correlated(11, 200, 48)
    x = correlated(11, 400, 48)[:tokens]
    result = rounded_expert(gate_up, down, x, sample, silu, Settings(), "expert 0")
    errors = output_errors(gate_up, down, result, correlated(11, 700, 48)[500:], silu)
    assert errors is not None
    before, after = errors
    assert after < before
    assert output_errors(gate_up, down, result, sample[:0], silu) is None


def test_nan_and_inf_are_refused_by_name() -> None:
    gate_up, down, x = 0.1 * normal(9, 64, 48), 0.1 * normal(10, 48, 32), normal(1, 50, 48)
    bad = x.clone()
    bad[7, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="layer 4, expert 2, gate_proj and up_proj: NaN or Inf among its 50"):
        rounded_expert(gate_up, down, bad, x, silu, Settings(), "layer 4, expert 2")
    wrong = down.clone()
    wrong[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="layer 4, expert 2: NaN or Inf in down_proj"):
        rounded_expert(gate_up, wrong, x, x, silu, Settings(), "layer 4, expert 2")


def test_all_zero_weights_stay_zero() -> None:
    result = rounded_expert(
        torch.zeros(32, 32), torch.zeros(32, 16), normal(2, 40, 32), normal(3, 9, 32), silu, Settings(), "expert 0"
    )
    assert not result.gate_up.dequantized().any()
    assert (result.down.scales == 0x38).all()
