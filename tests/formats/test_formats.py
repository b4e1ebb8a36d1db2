"""Every storage format alike: recognised by what stands in a file, sized, and decoded in numpy and torch to the bit."""

import importlib
import pkgutil
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch

import halfbyte.formats
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.catalogue import FORMATS, QUANTIZED, SCALE_PARTS, STACKS, declared, format_called, recognised
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.nvfp4.codec import encode
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.formats.storage import Span, StorageFormat
from halfbyte.formats.torch_dtypes import TORCH_DTYPES

E4M3 = ml_dtypes.float8_e4m3fn
SPELLED = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    name: str
    dtype: str
    shape: tuple[int, ...]


Arrays = dict[str, npt.NDArray[np.generic]]


def parts_of(arrays: Arrays) -> dict[str, Stored]:
    return {part: Stored(f"m.{part}", SPELLED[array.dtype], array.shape) for part, array in arrays.items()}


def raw_of(arrays: Arrays) -> dict[str, npt.NDArray[np.uint8]]:
    return {part: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for part, array in arrays.items()}


def weights(rows: int = 300, columns: int = 272) -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((rows, columns)).astype(np.float32)


def packed(scale: bool = True) -> Arrays:
    (codes, scales, scale_2), _ = encode(weights())
    arrays: Arrays = {"weight": codes, "weight_scale": scales.view(E4M3), "weight_scale_2": np.array(scale_2)}
    return arrays | {"input_scale": np.array(0.5, np.float32)} if scale else arrays


def tiles() -> npt.NDArray[np.float32]:
    return np.random.default_rng(8).uniform(0.001, 0.01, (3, 3)).astype(np.float32)


def codes(columns: int, low: int = 0, high: int = 256) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(9).integers(low, high, (300, columns), np.uint8)


def int4(group: int, points: bool) -> Arrays:
    width = 256 if group == 32 else 272
    arrays: Arrays = {"weight_packed": codes(width // 2).view(np.int32)}
    arrays["weight_scale"] = weights(300, width // group).astype(ml_dtypes.bfloat16)
    if points:
        arrays["weight_zero_point"] = codes(width // group * 4)[:38].view(np.int32)
    return arrays | {"weight_shape": np.array([300, width])}


def renamed(arrays: Arrays) -> Arrays:
    divisors = (("weight_global_scale", "weight_scale_2"), ("input_global_scale", "input_scale"))
    both: Arrays = {"weight_packed": arrays["weight"], "weight_scale": arrays["weight_scale"]}
    return both | {name: (1 / arrays[old].astype(np.float32)).reshape(1) for name, old in divisors}


EXAMPLES: dict[str, tuple[str, Arrays]] = {
    "bf16": ("bf16", {"weight": weights().astype(ml_dtypes.bfloat16)}),
    "f16": ("f16", {"weight": weights().astype(np.float16)}),
    "f32": ("f32", {"weight": weights()}),
    "fp8 of a tensor": ("fp8", {"weight": weights().astype(E4M3), "weight_scale": np.array(0.02, np.float32)}),
    "fp8 of a row": ("fp8", {"weight": weights().astype(E4M3), "weight_scale": weights(300, 1)}),
    "fp8 of one row": ("fp8", {"weight": weights(1).astype(E4M3), "weight_scale": np.array([0.1], np.float32)}),
    "fp8-block": ("fp8-block", {"weight": weights().astype(E4M3), "weight_scale_inv": tiles()}),
    "fp8-block as weight_scale": (
        "fp8-block",
        {"weight": weights().astype(E4M3), "weight_scale": tiles()},
    ),
    "int4": ("int4", int4(32, False)),
    "int4 of 16": ("int4-g16", int4(16, False)),
    "int4 with points": ("int4-g136-zp", int4(136, True)),
    "mxfp4": ("mxfp4", {"weight_packed": codes(128), "weight_scale": codes(8, 100, 140)}),
    "nvfp4-ct": ("nvfp4-ct", renamed(packed())),
    "nvfp4": ("nvfp4", packed()),
    "nvfp4 of weights": ("nvfp4", packed(scale=False)),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_it_is_recognised_and_sized_as_it_lies_in_the_file(case: str) -> None:
    name, arrays = EXAMPLES[case]
    form, shape = recognised(parts_of(arrays))
    assert (form.name, shape) == (name, (1 if "one row" in case else 300, 256 if case in ("int4", "mxfp4") else 272))
    assert form.quantized == (name in QUANTIZED)
    sized = format_called("nvfp4-w4a16") if "of weights" in case else form
    if "of a row" not in case and "int4" not in case:
        assert sized.bytes(shape) == sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize("case", EXAMPLES)
def test_numpy_and_torch_decode_to_the_same_bits(case: str) -> None:
    _, arrays = EXAMPLES[case]
    parts, raw = parts_of(arrays), raw_of(arrays)
    form, shape = recognised(parts)
    ours = form.decode(parts, raw)
    theirs = form.decode_torch(
        parts, {part: torch.from_numpy(data.copy()) for part, data in raw.items()}, torch.float32
    )
    assert ours.dtype == np.float32
    assert ours.shape == shape
    assert np.array_equal(ours.view(np.uint32), theirs.numpy().view(np.uint32))  # the sign of a zero too
    assert np.abs(ours).max() > 0


@pytest.mark.parametrize("case", EXAMPLES)
def test_rows_decode_to_the_rows_of_the_whole(case: str) -> None:
    _, arrays = EXAMPLES[case]
    parts = parts_of(arrays)
    form, shape = recognised(parts)
    whole = form.decode(parts, raw_of(arrays))
    step = form.row_step if form.row_step > 1 else 37
    for first in range(0, shape[0], step):
        stop = min(first + step, shape[0])
        spans = form.rows(parts, first, stop)
        run = {part: cut(arrays[part], span) for part, span in spans.items()}
        assert np.array_equal(form.decode(parts_of(run), raw_of(run)), whole[first:stop])


def cut(array: npt.NDArray[np.generic], span: Span) -> npt.NDArray[np.generic]:
    count = int(np.prod(span.shape, dtype=int))
    return array.reshape(-1)[span.first : span.first + count].reshape(span.shape)


def test_what_is_written_is_what_is_recognised() -> None:
    described = NVFP4.tensors("m", (32, 64))
    parts = {tensor.name.removeprefix("m."): Stored(tensor.name, tensor.dtype, tensor.shape) for tensor in described}
    assert recognised(parts) == (NVFP4, (32, 64))
    assert sum(tensor.bytes for tensor in described) == NVFP4.bytes((32, 64))


@pytest.mark.parametrize("name", ["bf16", "fp8-block", "nvfp4"])
def test_rounding_once_more_changes_nothing(name: str) -> None:
    [once] = format_called(name).rounded([weights()])
    [twice] = format_called(name).rounded([once])
    assert np.array_equal(once, twice)
    assert not np.array_equal(once, weights())


def test_an_unknown_mixture_of_parts_is_refused_by_name() -> None:
    parts = {"weight": Stored("m.weight", "BF16", (4, 4)), "weight_scale": Stored("m.weight_scale", "F32", ())}
    with pytest.raises(CheckpointError, match=r"m\.weight: BF16 with weight_scale is no known format"):
        recognised(parts)


def test_integers_are_not_computed_with() -> None:
    parts, raw = {"weight": Stored("m.weight", "U8", (4,))}, {"weight": np.zeros(4, np.uint8)}
    with pytest.raises(UnsupportedError, match=r"m\.weight: u8 is no weight"):
        recognised(parts)[0].decode(parts, raw)
    parts = {"weight": Stored("m.weight", "I16", (16,))}
    with pytest.raises(UnsupportedError, match="dtype I16 cannot be computed with"):
        recognised(parts)[0].decode(parts, {"weight": np.zeros(32, np.uint8)})


def test_the_tables_agree_on_widths() -> None:
    assert all(NUMPY_DTYPES[name].itemsize == DTYPE_BYTES[name] for name in NUMPY_DTYPES)
    assert all(TORCH_DTYPES[name].itemsize == DTYPE_BYTES[name] for name in TORCH_DTYPES)
    assert all(FORMATS[name].name == name for name in FORMATS)
    assert SCALE_PARTS[:3] == ("weight_scale", "weight_scale_2", "input_scale")


FP8_IN_BLOCKS = {
    "quant_method": "compressed-tensors",
    "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}},
}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("fp8-block", {"quant_method": "fp8"}),
        ("fp8-block", FP8_IN_BLOCKS),
        ("mxfp4", {"quant_method": "mxfp4"}),
        ("nvfp4", {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
        ("nvfp4-w4a16", {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}),
        ("int4", {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}),
        (
            "int4-zp",
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 4, "symmetric": False, "group_size": 32}}},
            },
        ),
        (
            None,
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 64}}},
            },
        ),
        (None, {"quant_method": "awq"}),
        (None, {"quant_method": ["fp8"]}),
    ],
)
def test_a_config_declares_its_format(name: str | None, block: dict[str, object]) -> None:
    found = declared(QuantizationBlock(block))
    assert (found.name if found is not None else None) == name


def test_every_format_of_the_folder_is_in_the_catalogue() -> None:
    for module in pkgutil.walk_packages(halfbyte.formats.__path__, "halfbyte.formats."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, StorageFormat):
                assert value in (FORMATS[value.name], STACKS.get(value.name))
