"""One matrix and the Hessian of its inputs: factor, columns, descent."""

from torch import Tensor

from halfbyte.quantize.gptq.columns import Rounded
from halfbyte.quantize.gptq.descent import diagonal_blocks
from halfbyte.quantize.gptq.factor import damped, factorised
from halfbyte.quantize.gptq.grid import shared_scale_2
from halfbyte.quantize.gptq.settings import Settings


def rounded_matrix(weight: Tensor, hessian: Tensor, settings: Settings, damping: float) -> tuple[Rounded, float]:
    """`weight` (float32 [N, K]) rounded for inputs with second moment `hessian` [K, K], and the damping it took."""
    scale_2 = shared_scale_2(weight, settings.headroom)
    factor = factorised(hessian, damping)
    whole = damped(hessian, factor.damping)
    blocks = diagonal_blocks(whole)
    if weight.device.type == "cuda":
        from halfbyte.quantize.gptq.graph import rounded_grid  # captures what follows, for speed
    else:
        from halfbyte.quantize.gptq.passes import rounded_grid
    codes, scales = rounded_grid(weight / scale_2, factor, whole, blocks, settings.sweeps)
    return Rounded(codes, scales, scale_2), factor.damping
