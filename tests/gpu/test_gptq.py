"""gptq on CUDA: the Triton kernel against the CPU's, also in Triton's interpreter; the whole matrix on a GPU."""

import os
from types import ModuleType

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from halfbyte.quantize.rounding import block_cpu, block_cuda
from halfbyte.quantize.rounding.block import Grid
from halfbyte.quantize.rounding.matrix import rounded_matrix
from halfbyte.quantize.rounding.settings import Settings

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rounded_twice(kernel: ModuleType, device: str) -> list[Tensor]:
    """A middle block of a grid, first as it comes, then again with new targets."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device)

    grid = Grid.of(300 * normal(70, 48))
    grid.weight[3] = 0
    inner, cost = torch.eye(16, device=device) + 0.3 * normal(16, 16).triu(1), normal(16).square()
    change = torch.zeros(70, 16, device=device)
    own = slice(16, 32)
    for away in (None, 60 * normal(70, 16)):
        wanted = grid.weight[:, own] - grid.error[:, own] + (0 if away is None else away)
        parts = grid.weight[:, own], grid.codes[:, own], grid.scales[:, 1], grid.error[:, own]
        kernel.round_rows(wanted, away, inner, cost, *parts, change)
    assert change.any()
    assert not change.all()
    return [part.cpu() for part in (grid.codes, grid.scales, grid.error, change)]


def test_the_kernels_agree() -> None:
    for ours, wanted in zip(rounded_twice(block_cuda, DEVICE), rounded_twice(block_cpu, "cpu"), strict=True):
        assert (ours == wanted).float().mean() > 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need CUDA")
@pytest.mark.parametrize("sweeps", [0, 2])
def test_a_matrix_costs_the_same_on_both_devices(sweeps: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 160) @ torch.randn(160, 160)
    hessian, weight = x.t() @ x / len(x), torch.randn(96, 160)
    results = [rounded_matrix(weight.to(d), hessian.to(d), Settings(sweeps=sweeps), 0.1)[0] for d in ("cpu", "cuda")]
    costs = []
    for result in results:
        error = weight - result.dequantized().cpu()
        costs.append(float(((error @ hessian) * error).sum()))
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)
