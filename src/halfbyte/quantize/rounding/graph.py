"""The passes over a matrix on CUDA, captured once per shape and then replayed.

Thousands of small kernels follow one another; started one by one from Python they take ten times longer than they run.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from halfbyte.quantize.rounding import passes
from halfbyte.quantize.rounding.descent import Blocks
from halfbyte.quantize.rounding.factor import Factor

SHAPES = 4
"""Captured graphs that are kept: gate/up and down of one model, and room for another."""


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, Tensor]


def rounded_grid(weight: Tensor, factor: Factor, hessian: Tensor, blocks: Blocks, sweeps: int) -> tuple[Tensor, Tensor]:
    """See `passes.rounded_grid`."""
    inputs = (weight, factor.carry, factor.inner, factor.weight, hessian, blocks.inverse, blocks.inner, blocks.weight)
    captured = _captured(weight.device, tuple(weight.shape), sweeps)
    for own, given in zip(captured.inputs, inputs, strict=True):
        own.copy_(given)
    captured.graph.replay()
    codes, scales = captured.outputs
    return codes.clone(), scales.clone()


@lru_cache(SHAPES)
def _captured(device: torch.device, shape: tuple[int, int], sweeps: int) -> _Captured:
    columns = shape[1]
    tiles = (columns // 16, 16, 16)
    shapes = (shape, (columns, columns), tiles, tiles[:2], (columns, columns), tiles, tiles, tiles[:2])
    inputs = tuple(torch.zeros(each, device=device) for each in shapes)
    weight, carry, inner, cost, hessian, inverse, block_inner, block_cost = inputs
    factor, blocks = Factor(carry, inner, cost), Blocks(inverse, block_inner, block_cost)

    def run() -> tuple[Tensor, Tensor]:
        return passes.rounded_grid(weight, factor, hessian, blocks, sweeps)

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # compiles the kernels and sizes the workspaces, which a capture must not
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    return _Captured(graph, inputs, outputs)
