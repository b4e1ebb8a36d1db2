"""The Triton kernels between humming's GEMMs: on a GPU, or in Triton's interpreter. Run with `make test-gpu`."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from halfbyte.runtime.backends import glue

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("tokens", "experts", "choices", "block"), [(1, 8, 2, 8), (5, 8, 2, 16), (70, 33, 8, 8)])
def test_every_row_stands_once_in_a_block_of_its_expert(tokens: int, experts: int, choices: int, block: int) -> None:
    index = torch.rand(tokens, experts, device=DEVICE).topk(choices).indices
    ids, expert_ids, padded = (tensor.cpu() for tensor in glue.align(index, experts, block))
    flat = index.reshape(-1).cpu()
    used = ids[: int(padded)]
    assert sorted(used[used < flat.numel()].tolist()) == list(range(flat.numel()))
    assert int(padded) % block == 0
    for at, row in enumerate(used.tolist()):
        assert row == flat.numel() or expert_ids[at // block] == flat[row]
    assert (ids[int(padded) :] == flat.numel()).all()


def test_silu_mul_and_weighted_sum() -> None:
    gate_up = torch.randn(6, 2 * 48, device=DEVICE)
    gate, up = gate_up.chunk(2, -1)
    assert torch.allclose(glue.silu_mul(gate_up), torch.nn.functional.silu(gate) * up, atol=1e-6)
    rows, weights = torch.randn(6, 40, device=DEVICE), torch.rand(3, 2, device=DEVICE)
    wanted = (rows.view(3, 2, 40) * weights[..., None]).sum(1)
    assert torch.allclose(glue.weighted_sum(rows, weights), wanted, atol=1e-6)
    position = torch.randperm(6, device=DEVICE)
    moved = torch.empty_like(rows)
    moved[position] = rows
    assert torch.allclose(glue.weighted_sum(moved, weights, position), wanted, atol=1e-6)
