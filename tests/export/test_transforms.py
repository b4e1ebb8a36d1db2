"""Every transform gives back its inputs, and notices an output it could not have written."""

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.export.rearranged import Columns, RopeRows, Rows
from halfbyte.export.transforms import (
    Computed,
    Copy,
    PackMxfp4,
    PackNvfp4,
    ScaleError,
    Transform,
    Transpose,
    WidenBf16,
    WidenF16,
    nvfp4_inputs,
)
from halfbyte.formats.decoding import blocks_of_mxfp4
from halfbyte.models.llama_cpp import Change

CASES: list[tuple[Transform, tuple[int, ...]]] = [
    (Copy(24), (24,)),
    (WidenBf16(12), (24,)),
    (WidenF16(12), (24,)),
    (Transpose(3, 5, 2), (30,)),
    (Transpose(3, 5, 4), (60,)),
    (PackNvfp4(128), nvfp4_inputs(128)),
    (PackMxfp4(3), (48, 3)),
    (RopeRows(Copy(24), 4), (24,)),
    (RopeRows(PackNvfp4(128), 2), nvfp4_inputs(128)),
    (RopeRows(WidenBf16(12), 4), (24,)),
    (Rows(PackMxfp4(6), 3, (range(0, 3, 2), range(1, 2))), (96, 6)),
    (Columns(Copy(48), 6, 2, (range(1, 6, 2), range(0, 6, 2))), (48,)),
    (Columns(Copy(48), 6, 2, (range(3, 6), range(3)), turned=True), (48,)),
    (Columns(PackNvfp4(256), 4, 1, (range(4),), turned=True), nvfp4_inputs(256)),
]


@pytest.mark.parametrize(("transform", "sizes"), CASES, ids=lambda case: str(case))
@settings(deadline=None)
@given(data=st.data())
def test_inverse_recovers_every_byte(transform: Transform, sizes: tuple[int, ...], data: st.DataObject) -> None:
    inputs = [np.frombuffer(data.draw(st.binary(min_size=n, max_size=n)), np.uint8) for n in sizes]
    if len(inputs) == 2:
        inputs[1] = inputs[1] % 0x7F  # sound block scales
    if isinstance(transform, WidenF16):
        inputs[0] = np.nan_to_num(inputs[0].view(np.float16), posinf=1).view(np.uint8)
    output = np.full(transform.output_bytes, 0xAA, np.uint8)
    transform.forward(inputs, output)
    back = [np.full(n, 0xAA, np.uint8) for n in sizes]
    assert transform.inverse(output, back)
    assert [a.tobytes() for a in back] == [b.tobytes() for b in inputs]


def test_widening_is_exact() -> None:
    values = np.arange(65536, dtype=np.uint16)
    for transform, dtype in ((WidenBf16(65536), ml_dtypes.bfloat16), (WidenF16(65536), np.float16)):
        output = np.empty(4 * 65536, np.uint8)
        transform.forward([values.view(np.uint8)], output)
        with np.errstate(invalid="ignore"):
            wanted = values.view(dtype).astype(np.float32)
        finite = ~np.isnan(wanted)
        assert np.array_equal(output.view(np.float32)[finite], wanted[finite])


def test_widened_output_with_more_bits_is_noticed() -> None:
    assert not WidenBf16(1).inverse(np.array([1.0000001], np.float32).view(np.uint8), [np.empty(2, np.uint8)])
    assert not WidenF16(1).inverse(np.array([1e-30], np.float32).view(np.uint8), [np.empty(2, np.uint8)])


def test_rope_rows_become_pairs() -> None:
    rows = np.arange(6, dtype=np.uint8)
    output = np.empty(6, np.uint8)
    RopeRows(Copy(6), 6).forward([rows], output)
    assert output.tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(("byte", "word"), [(0x7F, "NaN"), (0xB8, "negative")])
def test_bad_scales_are_refused(byte: int, word: str) -> None:
    with pytest.raises(ScaleError, match=word):
        PackNvfp4(64).forward([np.zeros(32, np.uint8), np.full(4, byte, np.uint8)], np.empty(36, np.uint8))


def test_a_part_of_what_is_read_is_that_part() -> None:
    matrix = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for transform, wanted in (
        (Columns(Copy(12), 4, 2, (range(1, 4, 2),), turned=True), matrix[:, 1::2].T),
        (Columns(Copy(12), 4, 2, (range(2, 4),)), matrix[:, 2:]),
        (Rows(Copy(16), 3, (range(0, 3, 2),)), matrix[::2]),
    ):
        output = np.empty(transform.output_bytes, np.uint8)
        transform.forward([matrix.view(np.uint8).reshape(-1)], output)
        assert not transform.reversible
        assert np.array_equal(output.view(np.uint16), wanted.reshape(-1))


def test_mxfp4_is_decoded_as_it_was() -> None:
    """gguf's own decoder says what llama.cpp's block means; ours what the checkpoint's does."""
    random = np.random.default_rng(0)
    codes, scales = random.integers(0, 256, (4, 2, 16), np.uint8), random.integers(100, 150, (4, 2), np.uint8)
    output = np.empty(4 * 2 * 17, np.uint8)
    PackMxfp4(8).forward([codes.reshape(-1), scales.reshape(-1)], output)
    ours = blocks_of_mxfp4(codes.reshape(4, -1), scales)
    assert np.array_equal(quants.dequantize(output.reshape(4, -1), GGMLQuantizationType.MXFP4), ours)


@pytest.mark.parametrize(
    ("change", "wanted"), [("one more", [1.0, 1.5, 0.0]), ("minus exp", [-1.0, -1.6487212, -0.36787945])]
)
def test_what_is_computed_is_float32_of_it(change: Change, wanted: list[float]) -> None:
    values, output = np.array([0, 0.5, -1], ml_dtypes.bfloat16), np.empty(12, np.uint8)
    transform = Computed(3, "BF16", change)
    transform.forward([values.view(np.uint8)], output)
    assert not transform.reversible
    assert output.view(np.float32).tolist() == np.array(wanted, np.float32).tolist()
