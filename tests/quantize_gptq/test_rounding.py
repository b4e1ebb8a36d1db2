"""The arithmetic: grid, factor, column loop, descent, correction, one expert."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from halfbyte.errors import NonFiniteError
from halfbyte.formats.nvfp4 import reference
from halfbyte.formats.nvfp4.format import E4M3
from halfbyte.formats.nvfp4.torch import nearest, packed, shared_scale_2
from halfbyte.quantize.rounding.block import Grid, round_block
from halfbyte.quantize.rounding.columns import Rounded, nearest_rounded
from halfbyte.quantize.rounding.correction import corrected
from halfbyte.quantize.rounding.expert import RoundedExpert, output_errors, rounded_expert
from halfbyte.quantize.rounding.factor import damped, factorised
from halfbyte.quantize.rounding.hessian import Inputs, cross_moment, four_bits, mixed
from halfbyte.quantize.rounding.matrix import rounded_matrix
from halfbyte.quantize.rounding.settings import Settings
from halfbyte.quantize.rounding.tokens import Tokens


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


def inputs(x: Tensor) -> Inputs:
    return Inputs(x, torch.ones(len(x)))


def moment(x: Tensor) -> Tensor:
    return inputs(x).second_moment


def rounded(weight: Tensor, hessian: Tensor, damping: float = 0.01, sweeps: int = 0) -> Rounded:
    return rounded_matrix(weight, hessian, Settings(sweeps=sweeps), damping)[0]


def test_without_compensation_it_is_the_reference_sweep_weighted_by_the_inputs_energy() -> None:
    weight, x = normal(0, 48, 96), normal(1, 400, 96) * torch.logspace(-1, 1, 96)
    energy = moment(x).diagonal()
    ours = rounded(weight, energy.diag(), damping=0)
    wanted = reference.encode(weight.numpy(), np.float32(ours.scale_2), "sweep", energy.numpy())
    assert (ours.scales.numpy() == wanted.scales).mean() > 0.99  # sums in another order decide near ties
    values = torch.from_numpy(reference.decode(wanted))
    assert cost(weight, ours.dequantized(), energy.diag()) == pytest.approx(
        cost(weight, values, energy.diag()), rel=1e-4
    )


def test_an_expert_of_the_weighted_sweep_keeps_to_its_weights() -> None:
    gate_up, down, x = normal(0, 64, 48), normal(1, 48, 32), correlated(2, 300, 48)
    settings = Settings.of("weighted-sweep", "NVFP4")
    result = rounded_expert(gate_up, down, Tokens(inputs(x), inputs(x[:50]), 64), swiglu, settings, "expert")
    for weight, found in ((gate_up, result.gate_up), (down, result.down)):
        steps = found.scales.view(torch.float8_e4m3fn).float() * found.scale_2
        codes = nearest((weight.unflatten(-1, (-1, 16)) / steps.unsqueeze(-1)).flatten(-2))
        assert torch.equal(found.codes.abs(), codes.abs())


def swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def one_expert(
    gate_up: Tensor, down: Tensor, x: Tensor, sample: Tensor, settings: Settings, name: str = "expert 0"
) -> RoundedExpert:
    return rounded_expert(gate_up, down, Tokens(inputs(x), inputs(sample), 64), swiglu, settings, name)


def test_without_correlation_it_is_the_sweep() -> None:
    weight = normal(1, 16, 64).bfloat16().float()
    ours = rounded(weight, torch.eye(64), 0.0)
    wanted = reference.encode(weight.numpy(), np.float32(ours.scale_2), "sweep")
    theirs = torch.from_numpy(reference.decode(wanted))
    assert cost(weight, ours.dequantized(), torch.eye(64)) == pytest.approx(
        cost(weight, theirs, torch.eye(64)), rel=1e-5
    )


def test_a_block_equals_plain_torch_for_every_scale() -> None:
    """All 16 scales tried one after the other, columns in a plain loop, in float64."""
    wanted = 300 * normal(20, 40, 16)
    wanted[3], wanted[4] = 0, wanted[4] * 1e-6
    inner = torch.eye(16) + 0.3 * normal(21, 16, 16).triu(1)
    weight = normal(22, 16).square()
    grid = Grid.of(wanted.clone())
    round_block(grid, 0, wanted, inner, weight)
    start = reference.encode(wanted.numpy(), np.float32(1)).scales.astype(int)
    best = torch.full((40,), torch.inf, dtype=torch.float64)
    for offset in range(-8, 8):
        step = torch.from_numpy(E4M3[np.clip(start + offset, 1, 126)]).double()
        error, total = torch.zeros(40, 16, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)
        for k in range(16):
            target = wanted[:, k].double() + error[:, :k] @ inner[:k, k].double()
            value = nearest((target / step[:, 0]).float()).double() * step[:, 0]
            total += weight[k].double() * (target - value).square()
            error[:, k] = wanted[:, k].double() - value
        best = torch.minimum(best, total)
    own = (grid.error.double() @ (inner * weight.sqrt()).double()).square().sum(1)
    assert torch.allclose(own, best, rtol=1e-3, atol=1e-6)
    assert int(grid.scales[3, 0]) == 0x38


def test_a_row_that_would_not_gain_keeps_what_it_has() -> None:
    weight = normal(23, 30, 16)
    inner, price = torch.eye(16), torch.ones(16)
    grid = Grid.of(weight)
    round_block(grid, 0, weight, inner, price)
    codes, scales, error = grid.codes.clone(), grid.scales.clone(), grid.error.clone()
    change = round_block(grid, 0, weight, inner, price, -error)
    assert not change.any()
    assert torch.equal(grid.codes, codes)
    assert torch.equal(grid.scales, scales)
    worse = 1.5 * error
    grid.error.copy_(worse)
    change = round_block(grid, 0, weight, inner, price, -worse)
    assert torch.equal(grid.error, error)
    assert torch.allclose(change, error - worse)


def test_the_factor_is_the_damped_hessian() -> None:
    whole = damped(moment(correlated(2, 400, 48)), 0.01)
    factor = factorised(whole)
    assert factor is not None
    upper = torch.zeros(48, 48)
    for b in range(3):
        own = slice(16 * b, 16 * b + 16)
        block = factor.inner[b] * factor.weight[b].sqrt()
        upper[: 16 * b, own] = factor.carry[: 16 * b, own] @ block
        upper[own, own] = block
    assert torch.allclose(upper @ upper.t(), whole, atol=1e-4)


@pytest.mark.parametrize("columns", [32, 160, 272])
def test_compensation_and_descent_each_lower_the_cost(columns: int) -> None:
    weight, hessian = normal(3, 32, columns), moment(correlated(4, 600, columns))
    whole = damped(hessian, 0.01)
    plain = cost(weight, rounded(weight, torch.eye(columns), 0.0).dequantized(), whole)
    after = [cost(weight, rounded(weight, hessian, 0.01, n).dequantized(), whole) for n in (0, 1, 2)]
    assert after[0] < 0.8 * plain
    assert after[1] < after[0]
    assert after[2] <= after[1]


@pytest.mark.parametrize("size", [1e-36, 1e-12, 1e12])
def test_nothing_depends_on_the_size_of_the_weights(size: float) -> None:
    weight, hessian = normal(3, 16, 64), moment(correlated(4, 300, 64))
    usual, other = rounded(weight, hessian, sweeps=2), rounded(weight * size, hessian, sweeps=2)
    assert (other.codes == usual.codes).float().mean() > 0.99
    assert other.scale_2 == pytest.approx(usual.scale_2 * size, rel=1e-5)


def test_the_column_loop_equals_one_column_at_a_time() -> None:
    """A plain LDLQ over all columns, given the scales that the loop chose."""
    weight, hessian = normal(5, 8, 160), moment(correlated(6, 500, 160))
    ours = rounded(weight, hessian)
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
    three = normal(8, 3, 64)
    three[:, 5:20] = 0
    for x in (three, three[:0], torch.zeros(9, 64)):
        for damping in (0.01, 0.0):
            assert rounded(weight, moment(x), damping, 2).dequantized().isfinite().all()
    dead = rounded(weight, moment(torch.zeros(9, 64)))
    plain = rounded(weight, torch.eye(64), 0.0)
    assert torch.equal(dead.dequantized(), plain.dequantized())


def test_moments_are_weighted_means() -> None:
    x, y, importance = normal(30, 50, 8), normal(31, 50, 5), normal(32, 50).square()
    seen = Inputs(x, importance)
    wanted = torch.einsum("t,ti,tj->ij", importance / importance.sum(), x, x)
    assert torch.allclose(seen.second_moment, wanted, atol=1e-6)
    wanted = torch.einsum("t,ti,tj->ij", importance / importance.sum(), x, y)
    assert torch.allclose(cross_moment(seen, y), wanted, atol=1e-6)
    assert torch.equal(Inputs(x, torch.zeros(50)).second_moment, torch.zeros(8, 8))


def test_the_correction_is_ridge_regression() -> None:
    weight, y = normal(33, 6, 16), normal(34, 400, 16)
    z = y + 0.5 * normal(35, 400, 16)
    hessian, cross = moment(z), cross_moment(inputs(z), y)
    ridge = 0.3 * hessian.diagonal().mean()
    ours = corrected(weight, hessian, cross, 0.3)

    def loss(candidate: Tensor) -> float:
        residual = z @ candidate.t() - y @ weight.t()
        return float(residual.square().sum(1).mean() + ridge * (candidate - weight).square().sum())

    assert loss(ours) < loss(weight)
    for seed in range(5):
        assert loss(ours) < loss(ours + 0.01 * normal(seed, 6, 16))
    assert torch.equal(corrected(weight, 0 * hessian, cross, 0.3), weight)
    assert torch.allclose(corrected(weight, hessian, cross, 1e6), weight, atol=1e-4)


def test_few_tokens_mean_more_damping_and_less_correction() -> None:
    settings = Settings()
    assert settings.damping_for(256, 1000) > settings.damping_for(256, 100_000) > settings.damping
    assert settings.correction_for(256, 10) > settings.correction_for(256, 1000)
    assert np.isfinite([settings.damping_for(256, 0), settings.correction_for(256, 0)]).all()


def test_four_bits_are_coarse_and_never_clip() -> None:
    x = normal(36, 20, 32)
    x[3, 5] = 900
    seen = four_bits(x)
    assert 0 < float((seen - x)[:3].norm() / x[:3].norm()) < 0.15
    assert float(seen[3, 5]) == pytest.approx(900, rel=0.07)
    assert torch.equal(four_bits(0 * x), 0 * x)
    assert four_bits(x[:0]).shape == (0, 32)


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
    result = one_expert(gate_up, down, x, sample, Settings())
    errors = output_errors(gate_up, down, result, correlated(11, 700, 48)[500:], swiglu)
    assert errors is not None
    before, after = errors
    assert after < before
    assert output_errors(gate_up, down, result, sample[:0], swiglu) is None


def test_nan_and_inf_are_refused_by_name() -> None:
    gate_up, down, x = 0.1 * normal(9, 64, 48), 0.1 * normal(10, 48, 32), normal(1, 50, 48)
    bad = x.clone()
    bad[7, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="layer 4, expert 2, gate_proj and up_proj: NaN or Inf among its 50"):
        one_expert(gate_up, down, bad, x, Settings(), "layer 4, expert 2")
    wrong = down.clone()
    wrong[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="layer 4, expert 2: NaN or Inf in down_proj"):
        one_expert(gate_up, wrong, x, x, Settings(), "layer 4, expert 2")


def test_all_zero_weights_stay_zero() -> None:
    x, sample = normal(2, 40, 32), normal(3, 9, 32)
    result = one_expert(torch.zeros(32, 32), torch.zeros(32, 16), x, sample, Settings())
    assert not result.gate_up.dequantized().any()
    assert (result.down.scales == 0x38).all()
