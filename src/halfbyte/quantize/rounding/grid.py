"""The NVFP4 grid in torch: the max rule's scales, nearest values, codes. Rules: `nvfp4.reference`."""

import torch
from torch import Tensor

from halfbyte.formats.nvfp4.format import E2M1_MAX, E4M3_MAX, E4M3_MIN
from halfbyte.formats.nvfp4.reference import scale_2_of


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


def nearest(x: Tensor) -> Tensor:
    """Nearest E2M1 value, ties to the even code, saturating at 6. x: float32, already divided by its step.

    The grid is even spaced by 0.5 below 2, by 1 below 4 and by 2 below 6, and half-to-even on each part is the
    tie rule of the codes.
    """
    magnitude = x.abs().clamp(max=E2M1_MAX)
    spacing = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return torch.copysign((magnitude / spacing).round() * spacing, x)


def packed(values: Tensor) -> Tensor:
    """uint8 [N, K/2], low nibble first, of E2M1 values [N, K]. A negative value that became zero keeps its sign bit."""
    magnitude = values.abs()
    code = torch.where(magnitude < 2, magnitude * 2, torch.where(magnitude < 4, magnitude + 2, magnitude / 2 + 4))
    code = code.to(torch.uint8) | (torch.signbit(values).to(torch.uint8) << 3)
    return code[:, 0::2] | (code[:, 1::2] << 4)
