"""One matrix and the Hessian of its inputs: factor, columns, descent."""

from torch import Tensor

from halfbyte.formats.nvfp4.torch import shared_scale_2
from halfbyte.quantize.rounding.columns import Rounded
from halfbyte.quantize.rounding.descent import diagonal_blocks
from halfbyte.quantize.rounding.factor import damped, factorised
from halfbyte.quantize.rounding.settings import Settings

LEAST_DAMPING = 1e-6
"""Tried next where none was asked for and the factorisation failed."""


def rounded_matrix(weight: Tensor, hessian: Tensor, settings: Settings, damping: float) -> tuple[Rounded, float]:
    """`weight` (float32 [N, K]) rounded for inputs with second moment `hessian` [K, K], and the damping it took.

    damping: share of the mean diagonal that is added to the diagonal, ten times more each time H cannot be factorised.
    """
    scale_2 = shared_scale_2(weight, settings.headroom)
    while (factor := factorised(whole := damped(hessian, damping))) is None:
        damping = max(10 * damping, LEAST_DAMPING)
    blocks = diagonal_blocks(whole)
    if weight.device.type == "cuda":
        from halfbyte.quantize.rounding.graph import rounded_grid  # captures what follows, for speed
    else:
        from halfbyte.quantize.rounding.passes import rounded_grid
    codes, scales = rounded_grid(weight / scale_2, factor, whole, blocks, settings.sweeps)
    return Rounded(codes, scales, scale_2), damping
