"""NVFP4 in plain torch, on any device: the numbers behind codes and scales, and the rounding of activations.

`decode` and `quantized_activations` leave the per-tensor scale out: `E2M1[code] * E4M3[scale]` has at most 6
significant bits and lies in 2**-10 to 2688, so it is exact in bfloat16, float16 and float32 alike. `weight_scale_2`
and `input_scale` then multiply the GEMM's result, in float32, which is also what the hardware does. `dequantized` and
`fake_quantized` put them in, for the reference back end. Rounding rules: `nvfp4.reference`.
"""

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import BLOCK_SIZE, E2M1, E2M1_MAX, E4M3_MAX

MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
TIE_GOES_UP = (False, True, False, True, False, True, False)


def decode(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """E2M1[code] * E4M3[scale], exactly.

    codes: uint8 [..., K/2], low nibble first. scales: float8_e4m3fn [..., K/16]. Returns `dtype` [..., K].
    """
    table = torch.from_numpy(E2M1).to(codes.device, dtype)
    pairs = torch.stack((codes & 15, codes >> 4), -1)
    blocks = table[pairs.int()].view(*scales.shape, BLOCK_SIZE)
    values: Tensor = blocks * scales.to(dtype).unsqueeze(-1)
    return values.view(*codes.shape[:-1], 2 * codes.shape[-1])


def dequantized(codes: Tensor, scales: Tensor, scale_2: Tensor) -> Tensor:
    """E2M1[code] * (E4M3[scale] * scale_2), the inner product rounded first: float32 [..., K], as ModelOpt's.

    scale_2: float32 [..., N], one for each row.
    """
    blocks = decode(codes, torch.ones_like(scales), torch.float32).unflatten(-1, (-1, BLOCK_SIZE))
    values: Tensor = blocks * (scales.float() * scale_2.unsqueeze(-1)).unsqueeze(-1)
    return values.flatten(-2)


def round_e2m1(magnitude: Tensor) -> Tensor:
    """Nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code; beyond 6 saturates, NaN stays NaN.

    magnitude: float32, any shape, not negative. Returns float32, same shape.
    """
    result = torch.zeros_like(magnitude)
    for k, (midpoint, up) in enumerate(zip(MIDPOINTS, TIE_GOES_UP, strict=True)):
        reached = magnitude >= midpoint if up else magnitude > midpoint
        result = torch.where(reached, float(E2M1[k + 1]), result)
    return torch.where(magnitude.isnan(), magnitude, result)


def round_activations(x: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The E2M1 values and E4M3 block scales that a Blackwell engine makes of activations.

    x: [..., K], any float dtype, K a multiple of 16. input_scale: float32 [], positive.
    Returns values float32 [..., K/16, 16] (signed E2M1) and scales float32 [..., K/16, 1] (E4M3 values): x is about
    values * scales * input_scale. The scale is E4M3(amax / (6 * input_scale)), saturating at 448; unlike a weight's it
    is not raised to 2**-9, so a block whose scale rounds to zero becomes zero (in ModelOpt's kernel and on hardware).
    An infinite activation saturates like any large one, NaN stays NaN.
    Source: ModelOpt 0.47 `fp4_kernel_hopper.fp4_fake_quant_kernel`, `nvfp4_quant.fp8_quantize_scale`.
    """
    blocks = x.float().unflatten(-1, (-1, BLOCK_SIZE))
    amax = blocks.abs().amax(-1, keepdim=True)
    ratio = (amax / (E2M1_MAX * input_scale)).clamp(max=E4M3_MAX)  # a NaN stays one
    scales = ratio.to(torch.float8_e4m3fn).float()
    steps = torch.where(scales == 0, torch.inf, scales * input_scale)  # the product is rounded, then the quotient
    magnitudes = round_e2m1(blocks.abs() / steps)
    return torch.where(blocks < 0, -magnitudes, magnitudes), scales


def quantized_activations(x: Tensor, input_scale: Tensor) -> Tensor:
    """Activations rounded to NVFP4, without the factor `input_scale`: exact in x's dtype, same shape. See above."""
    values, scales = round_activations(x, input_scale)
    return (values * scales).flatten(-2).to(x.dtype)


def fake_quantized(x: Tensor, input_scale: Tensor) -> Tensor:
    """Activations rounded to NVFP4 and back: float32, same shape, multiplied in ModelOpt's order."""
    values, scales = round_activations(x, input_scale)
    return (values * (scales * input_scale)).flatten(-2)
