"""amax by the largest, a percentile and the least error, against the definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.calibrate.coverage import BUCKETS, Coverage, histogram
from halfbyte.calibrate.inputs import Inputs
from halfbyte.calibrate.rule import MSE_STEPS, Rule, parse_rule
from halfbyte.errors import NonFiniteError, UsageError
from halfbyte.formats.nvfp4.torch import fake_quantized

CPU = torch.device("cpu")


def seen(x: torch.Tensor, rule: Rule, parts: int = 1) -> float:
    inputs = Inputs("x", rule, CPU)
    for part in x.chunk(parts):
        inputs.see(part)
    result = inputs.seen()
    assert result.tokens == len(x)
    assert result.largest == float(x.abs().max())
    return result.value


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), parts=st.integers(1, 5), percentile=st.sampled_from([10.0, 50.0, 99.0, 99.99, 100.0]))
def test_a_percentile_is_numpys_to_a_bin(seed: int, parts: int, percentile: float) -> None:
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 7 - 3)
    exact = float(np.percentile(x.abs().numpy(), percentile, method="inverted_cdf"))
    assert exact <= seen(x, Rule("percentile", percentile), parts) <= exact * 1.008 or percentile == 100.0
    assert seen(x, Rule("percentile", 100.0), parts) == float(x.abs().max())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), outlier=st.sampled_from([1.0, 30.0, 1e6]))
def test_mse_finds_the_least_error_of_its_steps(seed: int, outlier: float) -> None:
    x = torch.randn(12, 32, generator=torch.Generator().manual_seed(seed))  # few enough to be sampled whole
    x[3, 5] = outlier
    largest = float(x.abs().max())
    outliers = x[x.abs().amax(-1).topk(4).indices]

    def error(amax: float) -> float:
        scale = torch.tensor(amax / 2688)
        return sum(float((fake_quantized(rows, scale) - rows).square().sum()) for rows in (x, outliers))

    value = seen(x, Rule("mse"), 3)
    assert error(value) <= min(error(largest * step) for step in MSE_STEPS) * (1 + 1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("rule", [Rule(), Rule("percentile", 99.0), Rule("mse")])
def test_a_number_that_is_none_is_refused_by_name(bad: float, rule: Rule) -> None:
    inputs = Inputs("layer 7", rule, CPU)
    x = torch.ones(2, 16)
    x[1, 3] = bad
    inputs.see(x)
    inputs.see(torch.ones(2, 16))
    with pytest.raises(NonFiniteError, match="layer 7"):
        inputs.seen()


def test_nothing_and_only_zeros() -> None:
    inputs = Inputs("x", Rule("percentile", 99.0), CPU)
    inputs.see(torch.zeros(0, 16))
    assert (inputs.seen().tokens, inputs.seen().value) == (0, 0.0)
    inputs.see(torch.zeros(3, 16))
    assert (inputs.seen().tokens, inputs.seen().value) == (3, 0.0)


@pytest.mark.parametrize(
    ("text", "rule"), [("max", Rule()), ("mse", Rule("mse")), ("percentile:99.5", Rule("percentile", 99.5))]
)
def test_rules_are_read_and_written(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule
    assert rule.text == text


@pytest.mark.parametrize(
    "text", ["", "min", "percentile", "percentile:", "percentile:0", "percentile:101", "percentile:nan"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError, match="amax"):
        parse_rule(text)


@given(counts=st.lists(st.integers(0, 5000), min_size=1), least=st.integers(1, 100))
def test_coverage_counts_every_expert_once(counts: list[int], least: int) -> None:
    assert sum(histogram(counts)) == len(counts)
    document = Coverage(least, {5: counts}).as_json()
    assert list(document["layers"][0]["histogram"]) == list(BUCKETS)
    assert {row["expert"] for row in document["uncovered"]} == {e for e, count in enumerate(counts) if count < least}
    assert document["layers"][0]["histogram"]["0"] == counts.count(0)
