"""Record how ModelOpt rounds activations to NVFP4: `modelopt_activations.npz`, next to this file.

    pip install --target DIR triton==3.6.0          # the last with block pointers, which the kernel uses
    TRITON_INTERPRET=1 PYTHONPATH=DIR .venv-peers/bin/python tests/runtime/record_activations.py

Runs ModelOpt's own Triton kernel (`fp4_kernel_hopper.fp4_fake_quant_kernel`) in Triton's interpreter, so no GPU is
needed. One thing is mended: the interpreter casts to E4M3 with ties away from zero and flushes subnormals, where the
GPU's instruction (`cvt.rn.satfinite.e4m3x2.f32`) rounds to nearest even and has subnormals, as PyTorch's cast does;
so the interpreter is given PyTorch's cast.

Cases: x float32 [16, 64] and the global scale; y is what the kernel stored. Inputs are normal numbers, exact midpoints,
blocks that saturate and blocks that vanish.
"""

from pathlib import Path

import modelopt
import numpy as np
import torch
import triton
import triton.runtime.interpreter as interpreter
from modelopt.torch.kernels.quantization.gemm import fp4_kernel_hopper

SHAPE = (16, 64)
MIDPOINTS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)


_their_cast = interpreter._convert_float


def _cast(data: np.ndarray, source: object, destination: object, rounding: object) -> np.ndarray:
    """Triton's cast, and PyTorch's between float32 and E4M3."""
    types = (source, destination)
    if types == (triton.language.float32, triton.language.float8e4nv):
        return torch.from_numpy(np.ascontiguousarray(data)).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    if types == (triton.language.float8e4nv, triton.language.float32):
        codes = torch.from_numpy(np.ascontiguousarray(data)).view(torch.float8_e4m3fn)
        return codes.float().numpy().view(np.uint32)
    return _their_cast(data, source, destination, rounding)


interpreter._convert_float = _cast


def modelopt_rounds(x: np.ndarray, scale: float) -> np.ndarray:
    source = torch.from_numpy(x)
    result = torch.full_like(source, torch.nan)
    fp4_kernel_hopper.fp4_fake_quant_kernel[(1, 1)](
        source,
        result,
        *SHAPE,
        torch.tensor(scale, dtype=torch.float32),
        SHAPE[1],
        1,
        SHAPE[1],
        1,
        BLOCK_SIZE=16,
        TILE_M=SHAPE[0],
        TILE_N=SHAPE[1],
        NUM_FP4_BLOCKS=SHAPE[1] // 16,
        OUT_DTYPE=triton.language.float32,
    )
    return result.numpy()


def cases() -> dict[str, tuple[np.ndarray, float]]:
    random = np.random.default_rng(20260102)
    normal = random.standard_normal(SHAPE).astype(np.float32)
    bf16 = torch.from_numpy(normal).bfloat16().float().numpy()
    wide = (normal * 2.0 ** random.integers(-12, 13, (SHAPE[0], 1))).astype(np.float32)
    ties = np.tile(np.concatenate([MIDPOINTS, -MIDPOINTS, [6.0, -0.0]]).astype(np.float32), (16, 4))
    return {
        "normal": (normal, 0.002),
        "bf16_scale_one": (bf16, 1.0),
        "wide": (wide, 0.01),
        "ties": (ties * np.exp2(random.integers(-4, 5, (16, 1))).astype(np.float32), 0.125),
        "saturated": (normal * 100, 0.01),
        "vanishing": (normal * 0.004, 1.0),
        "zero": (np.zeros(SHAPE, np.float32), 0.5),
    }


def main() -> None:
    versions = f"modelopt {modelopt.__version__}, triton {triton.__version__}"
    arrays: dict[str, np.ndarray] = {"__versions__": np.array(versions)}
    for name, (x, scale) in cases().items():
        arrays |= {f"{name}.x": x, f"{name}.scale": np.float32(scale), f"{name}.y": modelopt_rounds(x, scale)}
    np.savez_compressed(Path(__file__).with_name("modelopt_activations.npz"), **arrays)


if __name__ == "__main__":
    main()
