"""Reference and codec give ModelOpt's bytes, on every recorded vector."""

import numpy as np
import pytest

from halfbyte.formats.nvfp4 import codec, reference
from halfbyte.formats.nvfp4.reference import Encoded

from .golden import CASES, MODELOPT_BUGS, Case, bits


def _assert_modelopt(encoded: Encoded, case: Case) -> None:
    assert bits(np.asarray(encoded.scale_2)) == bits(np.asarray(case.scale_2))
    np.testing.assert_array_equal(encoded.scales, case.scales)
    np.testing.assert_array_equal(encoded.codes, case.codes)


def test_the_archive_is_whole() -> None:
    assert len(CASES) == 89
    assert {case.weight.dtype.itemsize for case in CASES.values()} == {2, 4}
    assert np.unique(np.concatenate([case.scales.ravel() for case in CASES.values()])).tolist() == [*range(1, 0x7F)]


@pytest.mark.parametrize("name", CASES)
def test_reference(name: str) -> None:
    case = CASES[name]
    encoded = reference.encode(case.weight, case.given)
    _assert_modelopt(encoded, case)
    np.testing.assert_array_equal(bits(reference.decode(encoded)), bits(case.decoded))


@pytest.mark.parametrize("name", CASES)
def test_codec(name: str) -> None:
    case = CASES[name]
    encoded, _ = codec.encode(case.weight, case.given, workers=2)
    _assert_modelopt(encoded, case)
    np.testing.assert_array_equal(bits(codec.decode(encoded, workers=2)), bits(case.decoded))


@pytest.mark.parametrize("name", CASES)
def test_codec_sweep_equals_reference(name: str) -> None:
    case = CASES[name]
    with np.errstate(over="ignore"):
        wanted = reference.encode(case.weight, case.given, "sweep")
    encoded, _ = codec.encode(case.weight, case.given, "sweep")
    np.testing.assert_array_equal(encoded.scales, wanted.scales)
    np.testing.assert_array_equal(encoded.codes, wanted.codes)


@pytest.mark.parametrize("value", [0.0, -0.0])
@pytest.mark.parametrize("name", ["modelopt_bug_all_zero", "modelopt_bug_all_minus_zero"])
def test_an_all_zero_tensor_is_zero_where_modelopt_writes_nan(name: str, value: float) -> None:
    bug = MODELOPT_BUGS[name]
    assert bug["dequant_nan_elements"] == np.prod(bug["shape"])
    weight = np.full(bug["shape"], value, np.float32)
    for encoded in (reference.encode(weight), codec.encode(weight)[0], codec.encode(weight, rounding="sweep")[0]):
        assert encoded.scale_2 > 0
        assert (encoded.scales == 0x38).all()
        assert not encoded.codes.any()
        assert not bits(reference.decode(encoded)).any()
        assert not bits(codec.decode(encoded)).any()


def test_a_scale_2_that_underflows_stays_finite_where_modelopt_writes_nan() -> None:
    assert MODELOPT_BUGS["modelopt_bug_scale_2_underflow"]["dequant_nan_elements"] > 0
    weight = np.zeros((2, 32), np.float32)
    weight[0, 3] = 1e-44
    encoded, _ = codec.encode(weight)
    assert encoded.scale_2 > 0
    assert np.isfinite(codec.decode(encoded)).all()
    np.testing.assert_array_equal(encoded.scales, reference.encode(weight).scales)
