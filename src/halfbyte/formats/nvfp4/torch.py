"""NVFP4 in plain torch, on any device: the numbers behind codes and scales, the rounding of weights and activations.

`decode` and `quantized_activations` leave the per-tensor scale out: `E2M1[code] * E4M3[scale]` has at most 6
significant bits and lies in 2**-10 to 2688, so it is exact in bfloat16, float16 and float32 alike. `weight_scale_2`
and `input_scale` then multiply the GEMM's result, in float32, which is also what the hardware does. `dequantized` and
`fake_quantized` put them in, for the reference back end. Rounding rules: `nvfp4.reference`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from halfbyte.errors import CheckpointError
from halfbyte.formats.nvfp4.format import BLOCK_SIZE, E2M1, E2M1_MAX, E4M3_MAX, E4M3_MIN, SCALE_LAST
from halfbyte.formats.nvfp4.reference import scale_2_of


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


def dequantized_on_cpu(codes: Tensor, scales: Tensor, scale_2: Tensor) -> Tensor:
    """`dequantized` of one matrix by the compiled kernel: codes [N, K/2], scales [N, K/16], scale_2 []; float32 [N, K].

    The result is torch's own memory: its alignment decides how a GEMM rounds.
    """
    from halfbyte.formats.nvfp4 import kernels  # numba, which a GPU does not need

    result = torch.empty((codes.shape[0], 2 * codes.shape[1]))
    stored = codes.numpy().reshape(-1), scales.view(torch.uint8).numpy().reshape(-1)
    kernels.decode(*stored, np.float32(scale_2.item()), result.view(-1).numpy())
    return result


def round_e2m1(magnitude: Tensor) -> Tensor:
    """Nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code; beyond 6 saturates, NaN stays NaN.

    The grid is even spaced by 0.5 below 2, by 1 below 4 and by 2 below 6, and half-to-even on each part is the tie
    rule of the codes. magnitude: float32, any shape, not negative. Returns float32, same shape.
    """
    magnitude = magnitude.clamp(max=E2M1_MAX)
    spacing = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return (magnitude / spacing).round() * spacing


def nearest(x: Tensor) -> Tensor:
    """Nearest E2M1 value with the sign of x (float32, already divided by its step), zeros included."""
    return torch.copysign(round_e2m1(x.abs()), x)


def shared_scale_2(weight: Tensor, headroom: float) -> float:
    """`weight_scale_2` of matrices rounded together: amax / 2688 * headroom, float32 and never 0."""
    return float(scale_2_of(float(weight.abs().amax()) * headroom))


def max_scales(blocks: Tensor, scale_2: float) -> Tensor:
    """The max rule's E4M3 bytes, uint8 [N], of float32 blocks [N, 16]: the largest magnitude becomes 6."""
    ratio = blocks.abs().amax(-1) / (E2M1_MAX * scale_2)
    ratio = torch.where(ratio == 0, 1.0, ratio).clamp(E4M3_MIN, E4M3_MAX)
    return ratio.to(torch.float8_e4m3fn).view(torch.uint8)


def step_of(scale_bytes: Tensor, scale_2: float) -> Tensor:
    """float32 value of code 1.0 under each E4M3 byte: E4M3 * scale_2, the product rounded first."""
    return scale_bytes.to(torch.uint8).view(torch.float8_e4m3fn).float() * scale_2


def max_rounded(weights: Sequence[Tensor]) -> list[Tensor]:
    """Matrices [N, K] as the max rule leaves them under one `weight_scale_2`: float32, the numbers of codec's."""
    scale_2 = float(scale_2_of(max(float(weight.abs().amax()) for weight in weights)))
    found = []
    for weight in weights:
        blocks = weight.float().unflatten(-1, (-1, BLOCK_SIZE))
        step = step_of(max_scales(blocks, scale_2), scale_2).unsqueeze(-1)
        found.append((nearest(blocks / step) * step).flatten(-2))
    return found


def packed(values: Tensor) -> Tensor:
    """uint8 [N, K/2], low nibble first, of E2M1 values [N, K]. A negative value that became zero keeps its sign bit."""
    magnitude = values.abs()
    code = torch.where(magnitude < 2, magnitude * 2, torch.where(magnitude < 4, magnitude + 2, magnitude / 2 + 4))
    code = code.to(torch.uint8) | (torch.signbit(values).to(torch.uint8) << 3)
    return code[:, 0::2] | (code[:, 1::2] << 4)


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


def check_scales(name: str, scales: Tensor) -> None:
    """Refuse block scales that are NaN or negative. scales: float8_e4m3fn, any shape.

    Zero is legal, and its block is zero whatever its codes: older versions of ModelOpt wrote it where a scale
    underflows.
    """
    if scales.device.type == "meta" or not scales.numel():
        return
    raw = scales.view(torch.uint8)
    if int(raw.max()) > SCALE_LAST:
        wrong = int((raw > SCALE_LAST).sum())
        first = int((raw > SCALE_LAST).flatten().int().argmax())
        value = float(scales.flatten()[first].float())
        index = [int(i) for i in torch.unravel_index(torch.tensor(first), scales.shape)]
        raise CheckpointError(
            f"{name}: {wrong} block scale(s) are NaN or negative, first {value} at {index}",
            hint="the checkpoint is damaged; run `halfbyte verify` or download it again",
        )


def check_positive(name: str, scalars: Tensor) -> None:
    """Refuse tensor-wide scales that are not positive and finite. ModelOpt writes 0 for a dead expert's NaN weight."""
    if scalars.device.type == "meta":
        return
    wrong = ~(scalars.isfinite() & (scalars > 0))
    if bool(wrong.any()):
        first = int(wrong.flatten().int().argmax())
        index = [int(i) for i in torch.unravel_index(torch.tensor(first), scalars.shape)] if scalars.ndim else []
        raise CheckpointError(
            f"{name}: {float(scalars.flatten()[first])} at {index}, wanted a positive finite number",
            hint="the checkpoint is damaged, or an expert was never calibrated; quantize it again",
        )
