"""Every transform gives back its inputs, and notices an output it could not have written."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.export.transforms import (
    Copy,
    PackNvfp4,
    RopeRows,
    ScaleError,
    Transform,
    Transpose,
    WidenBf16,
    WidenF16,
    nvfp4_inputs,
)

CASES: list[tuple[Transform, tuple[int, ...]]] = [
    (Copy(24), (24,)),
    (WidenBf16(12), (24,)),
    (WidenF16(12), (24,)),
    (Transpose(3, 5, 2), (30,)),
    (Transpose(3, 5, 4), (60,)),
    (PackNvfp4(128), nvfp4_inputs(128)),
    (RopeRows(4, Copy(24)), (24,)),
    (RopeRows(2, PackNvfp4(128)), nvfp4_inputs(128)),
    (RopeRows(4, WidenBf16(12)), (24,)),
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
    RopeRows(6, Copy(6)).forward([rows], output)
    assert output.tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(("byte", "word"), [(0x7F, "NaN"), (0xB8, "negative")])
def test_bad_scales_are_refused(byte: int, word: str) -> None:
    with pytest.raises(ScaleError, match=word):
        PackNvfp4(64).forward([np.zeros(32, np.uint8), np.full(4, byte, np.uint8)], np.empty(36, np.uint8))
