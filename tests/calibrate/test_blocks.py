"""Histograms of block amax, and shares and headroom made from them, against counting by hand."""

import json
from math import inf, log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from halfbyte.calibrate.blocks import Blocks, Split
from halfbyte.calibrate.headroom import LEAST_HEADROOM, MOST_ADDED_ERROR, headroom_scale
from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.histogram import EDGES, TOKEN, Histogram
from halfbyte.calibrate.shares import CEILING, ROUNDING_ERROR, shares
from halfbyte.formats.nvfp4.torch import fake_quantized, round_activations

CPU = torch.device("cpu")
SEEDS = st.integers(0, 999)


def inputs(seed: int, rows: int = 40, octaves: float = 12.0) -> Tensor:
    """[rows, 64]: rows and blocks of many sizes, some blocks and rows of zeros, bfloat16 values."""
    random = torch.Generator().manual_seed(seed)
    sizes = 2 ** ((torch.rand(rows, 4, 1, generator=random) - 0.5) * 2 * octaves)
    sizes *= torch.rand(rows, 4, 1, generator=random) > 0.1
    x = (torch.randn(rows, 4, 16, generator=random) * sizes).flatten(1).bfloat16().float()
    x[seed % rows] = 0
    return x


def split(x: Tensor, mask: Tensor | None = None, parts: int = 1) -> Split:
    mask = torch.zeros(len(x), dtype=torch.bool) if mask is None else mask
    blocks = Blocks(CPU)
    for part, own in zip(x.chunk(parts), mask.chunk(parts), strict=True):
        blocks.see(part, own)
    return blocks.split()


def equal(a: Histogram, b: Histogram) -> bool:
    same = (a.counts == b.counts).all() and (a.weight == b.weight).all()
    return bool(same) and a.largest == b.largest


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, parts=st.integers(1, 7), keep=st.floats(0, 1))
def test_parts_add_up_exactly(seed: int, parts: int, keep: float) -> None:
    x = inputs(seed)
    mask = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) > keep
    together, apart = split(x, mask), split(x, mask, parts)
    assert all(equal(a, b) for a, b in zip(together, apart, strict=True))
    assert equal(together.calibration, split(x[~mask]).calibration)
    assert equal(together.held_out, split(x[mask]).calibration)
    assert equal(together.calibration + together.held_out, split(x).calibration)
    written = json.loads(json.dumps(together.calibration.as_json()))
    assert equal(Histogram.from_json(written), together.calibration)


def test_many_small_parts_and_one_large_one() -> None:
    x = inputs(1).repeat(1000, 1)
    whole, mask = split(x).calibration, torch.zeros(len(x), dtype=torch.bool)
    assert equal(whole, split(x, mask, 4000).calibration)
    assert whole.blocks == int((x.unflatten(1, (-1, 16)).abs().amax(-1) > 0).sum())


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, exponent=st.integers(-14, 8))
def test_shares_of_a_power_of_two_are_what_the_format_does(seed: int, exponent: int) -> None:
    x, scale = inputs(seed), 2.0**exponent
    found = shares(split(x).calibration, scale)
    assert found is not None
    blocks = x.unflatten(1, (-1, 16))
    amax = blocks.abs().amax(-1)
    used = amax > 0
    stored = round_activations(x, torch.tensor(scale))[1].squeeze(-1)
    ratio = amax / (6 * scale)  # exact: a power of two and 6 times a bfloat16 fit into a float32
    assert found.clipped == float((ratio > 448)[used].double().mean())
    assert found.subnormal == float((ratio <= 2**-6)[used].double().mean())
    assert found.vanished == float((stored == 0)[used].double().mean())
    energy = blocks.double().square().sum(-1)
    tokens = energy.sum(-1) > 0
    low = torch.where(ratio <= 2**-6, energy, 0.0).sum(-1)[tokens] / energy.sum(-1)[tokens]
    assert found.subnormal_energy == pytest.approx(float(low.mean()), abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, scale=st.floats(1e-4, 1e3))
def test_other_scales_err_by_a_bin_and_to_the_safe_side(seed: int, scale: float) -> None:
    x = inputs(seed)
    found = shares(split(x).calibration, scale)
    assert found is not None
    amax = x.unflatten(1, (-1, 16)).abs().amax(-1).double()
    amax = amax[amax > 0]
    for share, exact, wider in (
        (found.clipped, amax > CEILING * scale, amax > CEILING * scale / 2 ** (1 / 8)),
        (found.subnormal, amax <= 6 / 64 * scale, amax <= 6 / 64 * scale * 2 ** (1 / 8)),
        (found.vanished, amax <= 6 / 1024 * scale, amax <= 6 / 1024 * scale * 2 ** (1 / 8)),
    ):
        assert float(exact.double().mean()) <= share <= float(wider.double().mean())


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size=st.floats(1e-3, 1e3))
def test_the_largest_value_seen_does_not_clip(seed: int, size: float) -> None:
    blocks = split(inputs(seed) * size).calibration
    found = shares(blocks, blocks.largest / CEILING)
    assert found is not None
    assert found.clipped == 0


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, octaves=st.floats(0, 14), size=st.floats(1e-3, 1e3))
def test_headroom_is_all_that_costs_nothing(seed: int, octaves: float, size: float) -> None:
    blocks = split(inputs(seed, octaves=octaves) * size).calibration
    scale = headroom_scale(blocks)
    cost, next_cost = shares(blocks, scale), shares(blocks, 2 * scale)
    assert cost is not None
    assert next_cost is not None
    assert log2(scale).is_integer()
    room = CEILING * scale / blocks.largest
    assert room >= LEAST_HEADROOM
    assert cost.added_error <= MOST_ADDED_ERROR or room < 2 * LEAST_HEADROOM
    assert next_cost.added_error > MOST_ADDED_ERROR


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, exponent=st.integers(-2, 5))
def test_added_error_is_no_less_than_what_tokens_lose(seed: int, exponent: int) -> None:
    random = torch.Generator().manual_seed(seed)
    sizes = 2 ** (4 * torch.rand(400, 8, 1, generator=random) - 4)
    x = (torch.randn(400, 8, 16, generator=random) * sizes).flatten(1)

    def error(scale: float) -> float:
        lost = (fake_quantized(x, torch.tensor(scale)) - x).square().sum(-1) / x.square().sum(-1)
        return float(lost.mean())

    found = shares(split(x).calibration, 2.0**exponent)
    assert found is not None
    assert error(2.0**exponent) - error(2.0**-6) <= found.added_error * ROUNDING_ERROR + 2e-4


def test_a_token_weighs_the_same_however_large() -> None:
    x = torch.ones(100, 32)
    x[7] *= 1e20  # its squares overflow a float32
    blocks = split(x).calibration
    assert int(blocks.weight.sum()) == 100 * TOKEN
    found = shares(blocks, 1e16)
    assert found is not None
    assert found.vanished == found.subnormal_energy == 0.99


def test_nothing_zeros_and_numbers_that_are_none() -> None:
    empty = split(torch.zeros(0, 16)).calibration
    zeros = split(torch.zeros(3, 16)).calibration
    assert (zeros.counts[0], zeros.blocks, zeros.largest) == (3, 0, 0.0)
    for blocks in (empty, zeros, Histogram.empty()):
        assert shares(blocks, 1.0) is None
        assert headroom_scale(blocks) == 0.0
        assert equal(Histogram.from_json(blocks.as_json()), blocks)
    bad = torch.ones(2, 16)
    bad[0, 0], bad[1, 0] = inf, float("nan")
    assert split(bad).calibration.blocks == 2  # whoever gathers it refuses the numbers by name


def test_limits_of_powers_of_two_are_edges() -> None:
    edges = set(EDGES.tolist())
    for exponent in range(-20, 21):
        assert {CEILING * 2.0**exponent} | {6 * 2.0 ** (exponent - k) for k in range(6, 11)} <= edges


@given(documents=st.integers(0, 300), every=st.integers(8, 64))
def test_every_so_many_th_document_is_held_out(documents: int, every: int) -> None:
    flags = held_out(documents, every)
    assert len(flags) == documents
    if documents < 8:
        assert not any(flags)
    elif documents < every:
        assert flags == [False] * (documents - 1) + [True]
    else:
        assert [i for i, held in enumerate(flags) if held] == list(range(every - 1, documents, every))
