"""ModelOpt's quantization block, flat and nested, with values of any type."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from halfbyte.errors import CheckpointError
from halfbyte.formats.modelopt import ALGORITHMS, Algorithm, hf_quant_config, quantization_config
from halfbyte.formats.quantization_block import QuantizationBlock

WORDS = st.sampled_from(["weights", "group_size", "input_activations", "a"])
JSON = st.recursive(
    st.sampled_from([None, True, 16, "NVFP4", 0.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
KEYS = ("quant_method", "quant_algo", "ignore", "exclude_modules", "group_size", "config_groups", "quantization")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_forms_that_we_write_read_alike(algorithm: Algorithm) -> None:
    for written in (quantization_config(algorithm, ["lm_head"]), hf_quant_config(algorithm, ["lm_head"])):
        block = QuantizationBlock.merged(written)
        assert block.algorithm == algorithm
        assert block.excluded == ["lm_head"]
        assert {size for _, size in block.group_sizes("weights", "input_activations")} == {16}
    flat = QuantizationBlock(quantization_config(algorithm, []))
    assert flat.quantizes_activations(if_absent=False) is (algorithm == "NVFP4")
    assert [key for key, _ in flat.group_sizes("weights")] == ["group_size", "config_groups.group_0.weights.group_size"]


def test_activations_that_are_not_mentioned_are_the_callers_to_judge() -> None:
    block = QuantizationBlock({"config_groups": {"a": {"input_activations": None}, "b": {}}})
    assert block.quantizes_activations(if_absent=True)
    assert not block.quantizes_activations(if_absent=False)
    assert QuantizationBlock({}).quantizes_activations(if_absent=False)


def test_a_block_that_is_no_object_is_an_error() -> None:
    assert QuantizationBlock.of_config({}) is None
    with pytest.raises(CheckpointError, match="quantization_config is 'fp8', wanted an object"):
        QuantizationBlock.of_config({"quantization_config": "fp8"})


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_no_value_of_any_type_is_tripped_over(stated: dict[str, object]) -> None:
    block = QuantizationBlock.merged(stated)
    assert block.excluded is None or all(isinstance(entry, str) for entry in block.excluded)
    assert isinstance(block.has_sound_groups, bool)
    assert isinstance(block.quantizes_activations(if_absent=True), bool)
    assert all(key.endswith("group_size") for key, _ in block.group_sizes("weights"))
