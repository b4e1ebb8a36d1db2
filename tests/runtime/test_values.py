"""The numbers: decoding against the codec's reference, activations against ModelOpt's own kernel, bit for bit."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from halfbyte.formats.nvfp4 import reference
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.formats.nvfp4.format import E4M3
from halfbyte.runtime.backends import dot
from halfbyte.runtime.backends.decode import decode_into

GOLDEN = Path(__file__).with_name("modelopt_activations.npz")
CASES = ("normal", "bf16_scale_one", "wide", "ties", "saturated", "vanishing", "zero")


def every_pair() -> tuple[np.ndarray, np.ndarray]:
    """All 16 codes under each of the 127 legal scale bytes: codes [127, 8], scales [127, 1]."""
    codes = np.tile((np.arange(0, 16, 2) | np.arange(1, 16, 2) << 4).astype(np.uint8), (127, 1))
    return codes, np.arange(127, dtype=np.uint8)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_decoders_are_exact_for_every_code_and_scale(dtype: torch.dtype) -> None:
    codes, scales = every_pair()
    wanted = reference.decode(reference.Encoded(codes, scales, np.float32(1)))
    in_torch = values.decode(torch.from_numpy(codes), torch.from_numpy(scales).view(torch.float8_e4m3fn), dtype)
    scratch = torch.full((127 * 16,), torch.nan, dtype=dtype)
    decode_into(codes, scales, np.float32(1), scratch)
    assert np.array_equal(in_torch.float().numpy(), wanted)
    assert np.array_equal(scratch.view(127, 16).float().numpy(), wanted)


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (127, 16), (3, 48), (33, 2048)])
def test_a_row_times_packed_bytes_is_the_product_with_the_decoded_matrix(rows: int, columns: int) -> None:
    random = np.random.default_rng(rows)
    codes = random.integers(0, 256, (rows, columns // 2), np.uint8)
    scales = random.integers(0, 127, (rows, columns // 16), np.uint8)
    x, out = random.standard_normal(columns).astype(np.float32), np.full(rows, np.nan, np.float32)
    dot.matrix_times_row(codes, scales, np.float32(0.3), x, out)
    decoded = reference.decode(reference.Encoded(codes, scales, np.float32(0.3))).astype(np.float64)
    assert np.abs(out - decoded @ x).max() <= 1e-6 * (np.abs(decoded) @ np.abs(x)).max()


@pytest.mark.parametrize("case", CASES)
def test_activations_equal_modelopts_kernel(case: str) -> None:
    with np.load(GOLDEN) as golden:
        x, scale, y = (golden[f"{case}.{part}"] for part in ("x", "scale", "y"))
    ours = values.fake_quantized(torch.from_numpy(x), torch.tensor(scale)).numpy()
    assert np.array_equal(ours, y)


def test_activations_equal_the_weight_reference_where_no_scale_is_raised() -> None:
    """A weight's rule differs only for blocks whose scale would fall below 2**-9."""
    x = np.random.default_rng(1).standard_normal((32, 256)).astype(ml_dtypes.bfloat16)
    scale = reference.scale_2_of(np.abs(x).max())
    encoded = reference.encode(x, scale)
    found, scales = values.round_activations(torch.from_numpy(x.astype(np.float32)), torch.tensor(scale))
    assert np.array_equal(scales.squeeze(-1).numpy(), E4M3[encoded.scales])
    assert np.array_equal(
        values.fake_quantized(torch.from_numpy(x.astype(np.float32)), torch.tensor(scale)).numpy(),
        reference.decode(encoded),
    )
    assert found.abs().max() == 6


def test_rounding_goes_to_the_even_code_at_every_midpoint() -> None:
    x = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 1e30, torch.inf])
    assert values.round_e2m1(x).tolist() == [0, 0, 1, 1, 2, 2, 4, 4, 6, 6, 6]


def test_bad_activations_stay_visible() -> None:
    x = torch.ones(2, 16)
    x[0, 3] = torch.nan
    result = values.quantized_activations(x, torch.tensor(0.01))
    assert result[0].isnan().any()
    assert result[1].isfinite().all()
    assert values.quantized_activations(torch.full((1, 16), torch.inf), torch.tensor(1.0)).isfinite().all()


def test_quantized_activations_are_exact_in_bfloat16() -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    scale = torch.tensor(0.003)
    assert torch.equal(values.quantized_activations(x, scale).float(), values.quantized_activations(x.float(), scale))
