"""Packed matrices times activations on CUDA without humming-kernels: decode the hit experts, then `torch._grouped_mm`.

Slow beside humming (it writes and reads 2 bytes for each weight that takes 0.56), but right on any CUDA device.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear as dense

from halfbyte.formats.nvfp4 import torch as values
from halfbyte.runtime.backends.reference import per_row
from halfbyte.runtime.packed import Matrices

SCRATCH_ELEMENTS = 2**29
"""Decoded weights held at once: 1 GiB in bfloat16; decoding itself takes about six times that."""
GROUPED_CAPABILITY = (8, 0)


def linear(x: Tensor, matrices: Matrices, scale: Tensor | None) -> Tensor:
    """As `dequant_cpu.linear`: x [M, K] times one packed matrix [N, K] -> float32 [M, N]."""
    x, factors = _operands(x, matrices, scale)
    return dense(x, values.decode(matrices.codes, matrices.scales, x.dtype)).float() * factors


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float16 would overflow: weights reach 2,688 before their tensor-wide scale is applied."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def grouped(x: Tensor, matrices: Matrices, counts: Tensor, scale: Tensor | None) -> Tensor:
    """As `dequant_cpu.grouped`: x [rows, K] sorted by expert -> float32 [rows, N]; rows of no expert are zero."""
    x, factors = _operands(x, matrices, scale)
    rows, columns = matrices.codes.shape[1], 2 * matrices.codes.shape[2]
    result = torch.zeros((len(x), rows), dtype=torch.float32, device=x.device)
    per_expert = counts.tolist()
    hit = [expert for expert, count in enumerate(per_expert) if count]
    starts = [0, *torch.tensor(per_expert).cumsum(0).tolist()]
    step = max(1, SCRATCH_ELEMENTS // (rows * columns))
    for first in range(0, len(hit), step):
        chosen = hit[first : first + step]
        # experts that nobody chose have no rows, so the rows of consecutive hit experts are consecutive
        span = slice(starts[chosen[0]], starts[chosen[-1] + 1])
        index = torch.tensor(chosen, device=x.device)
        weights = values.decode(matrices.codes[index], matrices.scales[index], x.dtype)
        product = _grouped_mm(x[span], weights, [per_expert[expert] for expert in chosen])
        lengths = counts[index]
        result[span] = product.float() * factors[index].repeat_interleave(lengths, dim=0)
    return result


def _operands(x: Tensor, matrices: Matrices, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Activations in the GEMM's dtype, rounded to NVFP4 if `scale` says so, and what each row's result is times."""
    x = x.to(compute_dtype(x.dtype))
    if scale is None:
        return x, per_row(matrices)
    return values.quantized_activations(x, scale), per_row(matrices) * scale


def _grouped_mm(x: Tensor, weights: Tensor, lengths: list[int]) -> Tensor:
    """x [rows, K] in runs of `lengths`, weights [G, N, K] -> [rows, N]."""
    capable = x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) >= GROUPED_CAPABILITY
    if capable and x.dtype == torch.bfloat16:
        ends = torch.tensor(lengths, device=x.device).cumsum(0).to(torch.int32)
        product: Tensor = torch._grouped_mm(x, weights.transpose(1, 2), offs=ends)
        return product
    return torch.cat([dense(part, weight) for part, weight in zip(x.split(lengths), weights, strict=True)])
