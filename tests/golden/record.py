"""Record golden NVFP4 vectors from the real ModelOpt. Run with the environment of ``benchmarks/peers``.

    python tests/golden/record.py vectors                   # nvfp4_vectors.npz and modelopt_bugs.json
    python tests/golden/record.py tiny-glm --checkpoint DIR # tiny_glm_modelopt.json
    python tests/golden/record.py stacks --checkpoint DIR   # gpt_oss_modelopt.json, llama4_modelopt.json; DIR by
                                                            # tests/quantize/stacked.py

All write next to this file (``--out DIR`` changes that). Nothing here re-implements NVFP4: every recorded byte is
what ModelOpt returned. Sources are built so that the hard inputs (exact ties and their neighbours, every block scale
byte, subnormals, saturation) surely occur, and the script asserts that they do.

Layout of ``nvfp4_vectors.npz``, for a case NAME with a source of shape [N, K]:

    NAME.bf16 | NAME.f16 | NAME.f32   source bits: uint16, uint16 or uint32, [N, K]; the suffix is the dtype
    NAME.scale_2                      weight_scale_2: float32 bits as uint32, []
    NAME.weight                       packed codes: uint8, [N, K/2]
    NAME.weight_scale                 E4M3 bytes: uint8, [N, K/16]
    NAME.dequant                      ModelOpt's float32 dequantization, [N, K]; code 8 comes back as +0.0
    __meta__                          JSON text as uint8: versions, and per case note and scale_2 origin
                                      ("computed": amax/2688 by ModelOpt; "given": an input of the case)
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelopt
import numpy as np
import torch
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors import safe_open

HERE = Path(__file__).resolve().parent
SEED = 20260101
BLOCK = 16
MIDPOINTS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
# The 126 positive finite E4M3 values; E4M3[i] has byte i + 1.
E4M3 = torch.arange(1, 0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()
TORCH_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
SUFFIXES = {dtype: suffix for suffix, dtype in TORCH_DTYPES.items()}


# --------------------------------------------------------------------------------------------------------------------
# Bits and tensors
# --------------------------------------------------------------------------------------------------------------------


def exact(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Convert float64 values to ``dtype`` and insist that nothing was rounded."""
    source = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    result = source.to(dtype)
    assert torch.equal(result.double(), source), "a value of this case is not representable"
    return result


def rounded(values: np.ndarray, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Convert float64 values to ``dtype`` with rounding."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(dtype)


def int_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the integer type of the same width."""
    return torch.int32 if dtype == torch.float32 else torch.int16


def step(values: torch.Tensor, ulps: int) -> torch.Tensor:
    """Move every value by ``ulps`` representable steps away from zero (towards it when negative)."""
    return (values.view(int_dtype(values.dtype)) + ulps).view(values.dtype)


def to_bits(values: torch.Tensor) -> np.ndarray:
    """Return the raw bits as an unsigned NumPy array."""
    bits = values.contiguous().view(int_dtype(values.dtype)).numpy()
    return bits.view(np.uint32 if values.dtype == torch.float32 else np.uint16)


def from_bits(bits: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Make a tensor from raw bits."""
    return torch.from_numpy(bits.view(np.int32 if dtype == torch.float32 else np.int16).copy()).view(dtype)


# --------------------------------------------------------------------------------------------------------------------
# ModelOpt
# --------------------------------------------------------------------------------------------------------------------


def modelopt_quantize(
    source: torch.Tensor, scale_2: torch.Tensor | None = None
) -> tuple[NVFP4QTensor, torch.Tensor, torch.Tensor]:
    """Quantize with ModelOpt; without ``scale_2`` ModelOpt computes it from the tensor."""
    return NVFP4QTensor.quantize(source.clone(), BLOCK, None, scale_2)


def modelopt_dequantize(packed: torch.Tensor, scale: torch.Tensor, scale_2: torch.Tensor) -> torch.Tensor:
    """Dequantize packed codes with ModelOpt into float32."""
    shape = torch.Size((*packed.shape[:-1], packed.shape[-1] * 2))
    quantized = NVFP4QTensor(shape, torch.float32, packed)
    return quantized.dequantize(torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: BLOCK})


class Recorder:
    """Collects the arrays and notes of the golden cases."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.cases: dict[str, dict[str, str]] = {}

    def add(
        self, name: str, note: str, source: torch.Tensor, scale_2: float | torch.Tensor | None = None
    ) -> np.ndarray:
        """Quantize one source with ModelOpt, store everything, and return the block scale bytes."""
        assert name not in self.cases
        assert torch.isfinite(source).all()
        given = None if scale_2 is None else torch.as_tensor(scale_2, dtype=torch.float32)
        quantized, scale, used = modelopt_quantize(source, given)
        packed = quantized._quantized_data
        dequantized = modelopt_dequantize(packed, scale, used)
        assert scale.dtype == torch.float8_e4m3fn
        assert used.dtype == torch.float32
        assert used.ndim == 0
        assert used > 0
        scale_bytes = scale.view(torch.uint8).numpy()
        assert scale_bytes.min() >= 0x01, name
        assert scale_bytes.max() <= 0x7E, name
        assert torch.isfinite(dequantized).all(), name
        self.arrays[f"{name}.{SUFFIXES[source.dtype]}"] = to_bits(source)
        self.arrays[f"{name}.scale_2"] = to_bits(used)
        self.arrays[f"{name}.weight"] = packed.numpy()
        self.arrays[f"{name}.weight_scale"] = scale_bytes
        self.arrays[f"{name}.dequant"] = dequantized.numpy()
        self.cases[name] = {"note": note, "scale_2": "computed" if given is None else "given"}
        return scale_bytes

    def save(self, path: Path) -> None:
        """Write the compressed archive; the bytes do not depend on time or path."""
        meta = {"modelopt": modelopt.__version__, "torch": torch.__version__, "seed": SEED, "cases": self.cases}
        text = json.dumps(meta, sort_keys=True, indent=1).encode()
        np.savez_compressed(path, __meta__=np.frombuffer(text, dtype=np.uint8), **self.arrays)


# --------------------------------------------------------------------------------------------------------------------
# Cases
# --------------------------------------------------------------------------------------------------------------------


def add_distributions(rec: Recorder, rng: np.random.Generator) -> None:
    """Ordinary and heavy-tailed weights in the three source dtypes, and shapes with few rows or blocks."""
    for suffix, dtype in TORCH_DTYPES.items():
        rec.add(f"normal_{suffix}", "normal, std 0.02", rounded(rng.normal(0, 0.02, (48, 128)), dtype))
    rec.add("normal_wide_bf16", "normal, long rows", rounded(rng.normal(0, 0.02, (2, 6144))))
    rec.add("normal_one_block_bf16", "a single block", rounded(rng.normal(0, 0.02, (1, 16))))
    rec.add("normal_odd_rows_bf16", "7 rows of 3 blocks", rounded(rng.normal(0, 1, (7, 48))))
    for df in (2, 4):
        rec.add(f"student_t{df}_bf16", f"Student t, {df} degrees", rounded(rng.standard_t(df, (48, 128)) * 0.02))
    rec.add("laplace_bf16", "Laplace", rounded(rng.laplace(0, 0.02, (32, 128))))
    rec.add("student_t2_f32", "Student t, 2 degrees", rounded(rng.standard_t(2, (16, 128)) * 0.02, torch.float32))
    signs = rng.choice([-1.0, 1.0], (16, 64))
    for name, value in (("positive", 0.0123), ("negative", -3.0), ("max", 3.3895313892515355e38)):
        rec.add(f"all_equal_{name}_bf16", "one value everywhere", rounded(np.full((4, 64), value)))
    rec.add("all_equal_magnitude_bf16", "one magnitude, random signs", rounded(signs * 0.017))


def add_small(rec: Recorder, rng: np.random.Generator) -> None:
    """Tiny tensors: subnormal sources, and weight_scale_2 below the smallest normal float32."""
    bits = rng.integers(0, 0x80, (16, 64)).astype(np.uint16) | (rng.integers(0, 2, (16, 64)) << 15).astype(np.uint16)
    rec.add("subnormal_source_bf16", "only BF16 subnormals and zeros", from_bits(bits, torch.bfloat16))
    bits = rng.integers(0, 0x400, (16, 64)).astype(np.uint16) | (rng.integers(0, 2, (16, 64)) << 15).astype(np.uint16)
    rec.add("subnormal_source_f16", "only F16 subnormals and zeros", from_bits(bits, torch.float16))
    mixed = rng.normal(0, 1e-38, (16, 64))
    mixed[:, :16] *= 100
    rec.add("subnormal_mixed_bf16", "BF16 subnormals beside small normals", rounded(mixed))
    for exponent in (30, 33, 34, 35, 36, 37, 38, 39):
        source = rounded(rng.normal(0, 10.0**-exponent, (8, 64)))
        rec.add(f"tiny_1e{exponent}_bf16", f"normal, std 1e-{exponent}", source)
    lone = np.zeros((2, 32), dtype=np.uint16)
    lone[0, 3], lone[1, 20] = 0x0001, 0x8001
    rec.add("smallest_subnormal_bf16", "only +-2^-133, else zero", from_bits(lone, torch.bfloat16))
    rec.add("tiny_1e40_f32", "float32 subnormals, std 1e-40", rounded(rng.normal(0, 1e-40, (8, 64)), torch.float32))


def add_zeros_and_outliers(rec: Recorder, rng: np.random.Generator) -> None:
    """Zero blocks, signed zeros, and one element far above all others."""
    values = rng.normal(0, 0.02, (16, 128))
    values.reshape(16, 8, 16)[rng.random((16, 8)) < 0.4] = 0.0
    rec.add("zero_blocks_bf16", "all-zero blocks among normal ones", rounded(values))
    values = rng.normal(0, 0.02, (8, 64))
    values[2:5] = 0.0
    rec.add("zero_rows_bf16", "all-zero rows", rounded(values))
    lone = np.zeros((4, 64))
    lone[2, 37] = -0.125
    rec.add("one_nonzero_bf16", "a single nonzero element", rounded(lone))
    values = rng.normal(0, 0.02, (8, 64))
    kind = rng.integers(0, 4, (8, 64))
    values[kind == 0] = 0.0
    values[kind == 1] = -0.0
    values[kind == 2] *= 1e-4  # rounds to zero with either sign
    values[1, :16], values[2, 16:32], values[3, 32:48] = -0.0, 0.0, -1e-30
    rec.add("signed_zeros_bf16", "+0, -0, and small values of both signs that round to zero", rounded(values))
    for name, outlier in (("100", 100.0), ("1e6", -1e6), ("max", 3.3895313892515355e38)):
        values = rng.normal(0, 0.02, (16, 64))
        values[5, 21] = outlier
        rec.add(f"outlier_{name}_bf16", f"normal, std 0.02, and one element {outlier:g}", rounded(values))
    values = rng.normal(0, 1e-39, (4, 64))
    values[0, 0] = 3.3895313892515355e38
    scale = rec.add("ratio_underflow_bf16", "block amax / (6 * scale_2) underflows to 0: scale 1.0", rounded(values))
    assert np.all(scale[1:] == 0x38)
    values = rng.normal(0, 1.0, (126, 16)) * np.geomspace(2**-22, 1, 126)[:, None]
    rec.add("row_ramp_bf16", "rows from 2^-22 to 1: the clamp at 2^-9 and E4M3 subnormals", rounded(values))


def midpoint_source(scale_2: float, dtype: torch.dtype, scales: np.ndarray) -> torch.Tensor:
    """Rows whose block scale is exactly ``scales[row]`` and whose elements hit every E2M1 midpoint.

    Each block holds 6 * s * scale_2 (so the block scale is s) and, times s * scale_2 and with both signs, every
    midpoint exactly and its two neighbours in ``dtype``. The largest scale must be 448, so that ModelOpt computes
    exactly ``scale_2`` from the tensor.
    """
    unit = exact(scales[:, None] * scale_2 * MIDPOINTS, dtype)
    probes = torch.cat([step(unit, -1), unit, step(unit, 1)], dim=1)  # [rows, 21]
    probes = torch.cat([probes, -probes], dim=1)  # [rows, 42]
    top = exact(scales[:, None] * scale_2 * 6.0, dtype)
    blocks = [torch.cat([top if i % 2 else -top, probes[:, 14 * i : 14 * (i + 1)], top], dim=1) for i in range(3)]
    return torch.cat(blocks, dim=1)


def add_midpoints(rec: Recorder, rng: np.random.Generator) -> None:
    """Every E2M1 tie and its neighbours, under every E4M3 block scale and several values of weight_scale_2."""
    every = np.arange(0x01, 0x7F)

    def check(name: str, source: torch.Tensor, scale_2: float, wanted: np.ndarray) -> None:
        got = rec.add(name, f"every midpoint and its neighbours; scale_2 = {scale_2!r}", source)
        assert np.array_equal(got, np.repeat(wanted[:, None], 3, axis=1)), name
        assert rec.arrays[f"{name}.scale_2"].view(np.float32) == np.float32(scale_2), name

    for power in (-100, -20, -10, 0, 60):
        source = midpoint_source(2.0**power, torch.bfloat16, E4M3)
        check(f"midpoints_pow2_{power}_bf16", source, 2.0**power, every)
    # A weight_scale_2 with more significand bits leaves fewer for the block scale in BF16.
    for odd, scale_bits in ((3, 3), (5, 2)):
        significand = np.frexp(E4M3)[0] * 2**scale_bits
        keep = (significand == np.round(significand)) | (E4M3 == 448)
        source = midpoint_source(odd * 2.0**-14, torch.bfloat16, E4M3[keep])
        check(f"midpoints_{odd}xpow2_-14_bf16", source, odd * 2.0**-14, every[keep])
    for power in (-12, 3):
        check(f"midpoints_pow2_{power}_f16", midpoint_source(2.0**power, torch.float16, E4M3), 2.0**power, every)
    for index in range(3):
        scale_2 = (int(rng.integers(2**15, 2**16)) | 1) * 2.0**-32  # a full 16-bit significand
        check(f"midpoints_16bit_{index}_f32", midpoint_source(scale_2, torch.float32, E4M3), scale_2, every)


def add_block_scales(rec: Recorder, rng: np.random.Generator) -> None:
    """Every E4M3 byte as block scale, and block maxima exactly between two E4M3 values."""
    for suffix, dtype, factor in (("bf16", torch.bfloat16, 2.0**-12), ("f32", torch.float32, 1.2345e-4)):
        values = rng.uniform(-1, 1, (126, 32)) * 6 * E4M3[:, None] * factor
        values[:, [5, 26]] = 6 * E4M3[:, None] * factor * np.array([1, -1])
        scale = rec.add(f"every_scale_byte_{suffix}", "row i has block scale byte i + 1", rounded(values, dtype))
        assert np.array_equal(scale, np.repeat(np.arange(1, 0x7F)[:, None], 2, axis=1))
    # r = block amax / (6 * scale_2) exactly halfway between neighbours; below the smallest value r is clamped up.
    ties = np.concatenate([[2.0**-12, 2.0**-11, 2.0**-10, 2.0**-9], (E4M3[1:] + E4M3[:-1]) / 2, [448.0]])
    for power in (-80, -12, 5):
        unit = exact(ties[:, None] * 6 * 2.0**power, torch.bfloat16)
        top = torch.cat([step(unit, -1), unit, step(unit, 1)], dim=1)
        top[-1, 2] = top[-1, 1]  # nothing above the tensor maximum
        fill = torch.from_numpy(rng.uniform(-1, 1, (len(ties), 3, BLOCK))) * top.double().abs().unsqueeze(-1)
        source = fill.to(torch.bfloat16)
        source[:, :, 7] = top
        note = "each row: block amax just below, at and just above an E4M3 tie"
        scale = rec.add(f"scale_ties_pow2_{power}_bf16", note, source.reshape(len(ties), 3 * BLOCK))
        assert np.all(scale[4:-1, 1] % 2 == 0)  # ties go to the even byte
        assert np.all(scale[4:-1, 0] + 1 == scale[4:-1, 2])


def add_given_scales(rec: Recorder, rng: np.random.Generator) -> None:
    """weight_scale_2 as an input: gate/up pairs, saturation, and scales larger than needed."""
    for index, (gate_std, up_std) in enumerate(((0.02, 0.03), (0.5, 0.001), (0.02, 0.02))):
        gate, up = rounded(rng.normal(0, gate_std, (16, 128))), rounded(rng.normal(0, up_std, (16, 128)))
        shared = torch.maximum(gate.abs().max(), up.abs().max()).float() / 2688
        rec.add(
            f"gate_up_shared_{index}_gate_bf16", "gate of a pair, scale_2 = max(amax gate, amax up)/2688", gate, shared
        )
        rec.add(f"gate_up_shared_{index}_up_bf16", "up of a pair, scale_2 = max(amax gate, amax up)/2688", up, shared)
    zero = torch.zeros((4, 64), dtype=torch.bfloat16)
    rec.add("gate_up_zero_up_bf16", "all-zero up of a pair whose gate is not zero", zero, 1e-5)
    for divisor in (1.5, 2.0, 7.3, 300.0, 1e6):
        source = rounded(rng.normal(0, 0.02, (16, 64)))
        scale_2 = float(source.abs().max()) / 2688 / divisor
        rec.add(
            f"saturating_{divisor:g}_bf16".replace(".", "p"),
            f"scale_2 = amax/2688/{divisor:g}: scales stop at 448",
            source,
            scale_2,
        )
    for factor in (1.1, 3.0, 1e3, 1e6):
        source = rounded(rng.normal(0, 0.02, (16, 64)))
        scale_2 = float(source.abs().max()) / 2688 * factor
        rec.add(
            f"oversized_{factor:g}_bf16".replace(".", "p"),
            f"scale_2 = amax/2688*{factor:g}: small scales, clamped at 2^-9",
            source,
            scale_2,
        )


def add_random_bits(rec: Recorder, rng: np.random.Generator) -> None:
    """Random finite bit patterns: over all exponents at once, and in bands so that every exponent survives."""
    bits = rng.integers(0, 0x7F80, (64, 128)).astype(np.uint16) | (rng.integers(0, 2, (64, 128)) << 15).astype(
        np.uint16
    )
    rec.add("random_bits_all_bf16", "finite BF16 bit patterns, all exponents", from_bits(bits, torch.bfloat16))
    for low in range(0, 255, 15):
        bits = rng.integers(low << 7, (low + 15) << 7, (8, 64)) | (rng.integers(0, 2, (8, 64)) << 15)
        source = from_bits(bits.astype(np.uint16), torch.bfloat16)
        rec.add(f"random_bits_exp{low:03d}_bf16", f"finite BF16 bits, biased exponents {low}-{low + 14}", source)
    bits = rng.integers(0, 0x7C00, (16, 64)) | (rng.integers(0, 2, (16, 64)) << 15)
    rec.add("random_bits_all_f16", "finite F16 bit patterns", from_bits(bits.astype(np.uint16), torch.float16))
    bits = rng.integers(96 << 23, 128 << 23, (16, 64)) | (rng.integers(0, 2, (16, 64)) << 31)
    rec.add("random_bits_f32", "F32 bit patterns, 2^-31 to 2", from_bits(bits.astype(np.uint32), torch.float32))


def modelopt_bugs() -> dict[str, Any]:
    """Record what ModelOpt does where its result must not be copied."""
    lone = torch.zeros((2, 32), dtype=torch.float32)
    lone[0, 3] = 1e-44
    broken = torch.ones((2, 32), dtype=torch.bfloat16)
    nan, inf = broken.clone(), broken.clone()
    nan[0, 3], inf[0, 3] = float("nan"), float("inf")
    cases: dict[str, tuple[str, torch.Tensor]] = {
        "modelopt_bug_all_zero": ("all-zero tensor: scale_2 = 0, block scales NaN", torch.zeros_like(broken)),
        "modelopt_bug_all_minus_zero": ("only -0.0", -torch.zeros_like(broken)),
        "modelopt_bug_scale_2_underflow": ("float32 amax 1e-44: amax/2688 underflows to 0", lone),
        "modelopt_bug_nan": ("one NaN in a tensor of ones", nan),
        "modelopt_bug_inf": ("one Inf in a tensor of ones", inf),
    }
    result: dict[str, Any] = {"modelopt": modelopt.__version__, "torch": torch.__version__}
    for name, (note, source) in cases.items():
        quantized, scale, scale_2 = modelopt_quantize(source)
        packed = quantized._quantized_data
        dequantized = modelopt_dequantize(packed, scale, scale_2)
        result[name] = {
            "note": note,
            "shape": list(source.shape),
            "scale_2_f32_hex": f"{int(to_bits(scale_2)):08x}",
            "weight_hex": packed.numpy().tobytes().hex(),
            "weight_scale_hex": scale.view(torch.uint8).numpy().tobytes().hex(),
            "dequant_nan_elements": int(torch.isnan(dequantized).sum()),
        }
    return result


def record_vectors(out: Path) -> None:
    """Write ``nvfp4_vectors.npz`` and ``modelopt_bugs.json``."""
    rec = Recorder()
    groups: list[Callable[[Recorder, np.random.Generator], None]] = [
        add_distributions,
        add_small,
        add_zeros_and_outliers,
        add_midpoints,
        add_block_scales,
        add_given_scales,
        add_random_bits,
    ]
    for index, group in enumerate(groups):
        group(rec, np.random.default_rng([SEED, index]))
    path = out / "nvfp4_vectors.npz"
    rec.save(path)
    (out / "modelopt_bugs.json").write_text(json.dumps(modelopt_bugs(), indent=1) + "\n", encoding="utf-8")
    elements = sum(a.size for k, a in rec.arrays.items() if k.endswith(".dequant"))
    print(f"{path.name}: {len(rec.cases)} cases, {elements} elements, {path.stat().st_size} bytes")


# --------------------------------------------------------------------------------------------------------------------
# Whole model
# --------------------------------------------------------------------------------------------------------------------


def sha256(values: torch.Tensor) -> str:
    """Hash the raw bytes of a tensor (little-endian, row-major)."""
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def float_hex(values: torch.Tensor) -> str:
    """Return the bits of a float32 scalar as 8 hex digits."""
    assert values.dtype == torch.float32
    assert values.numel() == 1
    return f"{int(to_bits(values.reshape(()))):08x}"


def read_export(path: Path) -> dict[str, torch.Tensor]:
    """Load every tensor of an exported checkpoint."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(path.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as handle:
            tensors.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118
    return tensors


def describe_experts(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, str]]:
    """Hash every quantized matrix of an export, by module name."""
    modules: dict[str, dict[str, str]] = {}
    for key in sorted(tensors):
        if not key.endswith(".weight_scale_2"):
            continue
        module = key.removesuffix(".weight_scale_2")
        weight, scale, scale_2 = tensors[f"{module}.weight"], tensors[f"{module}.weight_scale"], tensors[key]
        assert weight.dtype == torch.uint8
        assert scale.dtype == torch.float8_e4m3fn
        modules[module] = {
            "shape": "x".join(str(n) for n in (weight.shape[0], weight.shape[1] * 2)),
            "weight_sha256": sha256(weight),
            "weight_scale_sha256": sha256(scale),
            "weight_scale_2": float_hex(scale_2),
            "input_scale": float_hex(tensors[f"{module}.input_scale"]),
            "dequant_f32_sha256": sha256(modelopt_dequantize(weight, scale, scale_2)),
        }
    return modules


def zero_expert(model: torch.nn.Module, layer: int, expert: int) -> None:
    """Set all weights of one routed expert to zero."""
    experts = model.get_submodule(f"model.layers.{layer}.mlp.experts")
    with torch.no_grad():
        experts.gate_up_proj[expert].zero_()
        experts.down_proj[expert].zero_()


def record_tiny_glm(src: Path, out: Path, calibration: Path, rows: int, max_tokens: int) -> None:
    """Quantize and export a real checkpoint with ModelOpt, once as it is and once with one dead expert."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks" / "peers"))
    import quantize_modelopt as peer

    def export(destination: Path, edit: Callable[[torch.nn.Module], None]) -> dict[str, torch.Tensor]:
        model = peer.load_model(src)
        edit(model)
        peer.quantize(model, peer.calibration_batches(src, calibration, rows, max_tokens, model.config.vocab_size))
        peer.export_hf_checkpoint(model, export_dir=destination)
        return read_export(destination)

    scratch = Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            tensors = export(scratch / "plain", lambda model: None)
            dead = export(scratch / "dead", lambda model: zero_expert(model, 2, 3))
        config = json.loads((scratch / "plain" / "config.json").read_text(encoding="utf-8"))
        hf_quant_config = json.loads((scratch / "plain" / "hf_quant_config.json").read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(scratch)

    modules = describe_experts(tensors)
    source = read_export(src)
    kept = {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in modules}
    gates = [name for name in modules if name.endswith(".gate_proj")]
    ups = {name: name.removesuffix("gate_proj") + "up_proj" for name in gates}
    result = {
        "versions": {
            "modelopt": modelopt.__version__,
            "torch": torch.__version__,
            "transformers": peer.transformers.__version__,
        },
        "notes": [
            "weight_scale_2 and input_scale: float32 bits in hex, most significant digit first",
            "hashes: sha256 of raw tensor bytes, row-major, float32 little-endian",
            "dequant_f32_sha256: as ModelOpt decodes; code 8 (minus zero) becomes +0.0",
            "input_scale depends on BF16 arithmetic of the calibration machine; weights do not",
        ],
        "calibration": {"rows": rows, "max_tokens": max_tokens},
        "checks": {
            "quantized_matrices": len(modules),
            "gate_up_same_weight_scale_2": all(
                modules[g]["weight_scale_2"] == modules[u]["weight_scale_2"] for g, u in ups.items()
            ),
            "gate_up_scale_2_is_max_of_both": all(
                float_hex(torch.maximum(*(source[f"{m}.weight"].abs().max() for m in pair)).float() / 2688)
                == modules[pair[0]]["weight_scale_2"]
                for pair in ups.items()
            ),
            "gate_up_same_input_scale": all(
                modules[g]["input_scale"] == modules[u]["input_scale"] for g, u in ups.items()
            ),
            "kept_tensors": len(kept),
            "kept_missing_from_source": sorted(k for k in kept if k not in source),
            "source_missing_from_export": sorted(k for k in source if k not in tensors),
            "kept_dtype_changed": sorted(k for k in kept if k in source and kept[k].dtype != source[k].dtype),
            "kept_bytes_changed": sorted(k for k in kept if k in source and not torch.equal(kept[k], source[k])),
            "scalar_shapes": sorted(
                {str(list(tensors[f"{m}.{s}"].shape)) for m in modules for s in ("weight_scale_2", "input_scale")}
            ),
        },
        "hf_quant_config": hf_quant_config,
        "quantization_config": config["quantization_config"],
        "modules": modules,
        "modelopt_bug_all_zero_expert": {
            name: {
                "weight_scale_2": float_hex(dead[f"{name}.weight_scale_2"]),
                "weight_scale_bytes": sorted(set(dead[f"{name}.weight_scale"].view(torch.uint8).flatten().tolist())),
                "weight_bytes": sorted(set(dead[f"{name}.weight"].flatten().tolist())),
                "input_scale": float_hex(dead[f"{name}.input_scale"]),
            }
            for name in (f"model.layers.2.mlp.experts.3.{p}_proj" for p in ("gate", "up", "down"))
        },
    }
    path = out / "tiny_glm_modelopt.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["checks"], indent=1))
    print(f"{path.name}: {len(modules)} matrices, {path.stat().st_size} bytes")


def record_stacks(src: Path, out: Path) -> None:
    """Export a small gpt-oss (DIR/bf16) and a Llama 4 (DIR/llama4) with ModelOpt, and cast the stacks of a published
    gpt-oss (DIR/mxfp4)."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks" / "peers"))
    from modelopt.torch.export.shard_cast_utils import mxfp4_kmax, quantize_mxfp4_to_nvfp4_lossless

    tensors, hf_quant_config = exported(src / "bf16")
    published, cast = read_export(src / "mxfp4"), {}
    for name in sorted(published):
        if not name.endswith("_blocks"):
            continue
        stack, blocks = name.removesuffix("_blocks"), published[name]
        scales = published[f"{stack}_scales"]
        codes, block_scales, scale_2, kept, total = quantize_mxfp4_to_nvfp4_lossless(
            blocks.flatten(-2), scales, mxfp4_kmax(scales), "cpu"
        )
        cast[stack] = {
            "weight_sha256": sha256(codes.transpose(-2, -1)),
            "weight_scale_sha256": sha256(block_scales.transpose(-2, -1)),
            "weight_scale_2": float_hex(scale_2),
            "lossless_blocks": [int(kept), int(total)],
        }
    notes = ["cast: of the stacks of DIR/mxfp4 under one second scale a stack, then turned as the export turns them"]
    write_stacks(out / "gpt_oss_modelopt.json", "bf16", tensors, hf_quant_config, notes, {"cast": cast})
    tensors, hf_quant_config = exported(src / "llama4")
    write_stacks(out / "llama4_modelopt.json", "llama4", tensors, hf_quant_config, [], {})


def exported(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Every tensor that ModelOpt's export of a checkpoint has, and its hf_quant_config.json."""
    import quantize_modelopt as peer

    scratch = Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            peer.run(checkpoint, scratch, None, 4, 64)
        return read_export(scratch), json.loads((scratch / "hf_quant_config.json").read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(scratch)


def write_stacks(
    path: Path,
    name: str,
    tensors: dict[str, torch.Tensor],
    hf_quant_config: dict[str, Any],
    notes: list[str],
    more: dict[str, Any],
) -> None:
    """What the export of DIR/name has."""
    import transformers

    result = {
        "versions": {
            "modelopt": modelopt.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "notes": [
            f"tensors: dtype, shape and sha256 of every tensor of the export of DIR/{name}, raw bytes, row-major",
            "input_scales: float32 bits in hex; they depend on BF16 arithmetic of the calibration machine",
            *notes,
        ],
        "hf_quant_config": hf_quant_config,
        "tensors": {
            tensor: [str(value.dtype).removeprefix("torch."), list(value.shape), sha256(value.reshape(-1))]
            for tensor, value in sorted(tensors.items())
        },
        "input_scales": {
            tensor: float_hex(value) for tensor, value in sorted(tensors.items()) if tensor.endswith("_input_scale")
        },
        **more,
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="output directory (default: beside this script)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vectors", help="tensor-level golden vectors")
    tiny = commands.add_parser("tiny-glm", help="hashes of a whole ModelOpt export")
    tiny.add_argument("--checkpoint", type=Path, required=True, help="source checkpoint directory")
    tiny.add_argument("--calibration", type=Path, help="JSON lines (default: DIR/calibration.jsonl)")
    tiny.add_argument("--rows", type=int, default=8, help="calibration rows")
    tiny.add_argument("--max-tokens", type=int, default=256, help="tokens kept of each calibration row")
    stacks = commands.add_parser("stacks", help="hashes of ModelOpt's stacks of experts")
    stacks.add_argument("--checkpoint", type=Path, required=True, help="what tests/quantize/stacked.py wrote")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.command == "vectors":
        record_vectors(args.out)
    elif args.command == "stacks":
        record_stacks(args.checkpoint, args.out)
    else:
        calibration = args.calibration or args.checkpoint / "calibration.jsonl"
        record_tiny_glm(args.checkpoint, args.out, calibration, args.rows, args.max_tokens)


if __name__ == "__main__":
    main()
