"""Measures from logits against their definitions, whatever the chunking."""

import numpy as np
import pytest
import torch

from halfbyte.compare import tokens
from halfbyte.compare.layers import hidden_error, selection_overlap
from halfbyte.compare.tokens import compare_span, measure
from halfbyte.errors import NonFiniteError


class Given:
    """A model that is a table of logits."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def logits(self, sequence: int, start: int, stop: int) -> torch.Tensor:
        return self.table[start:stop]


def tables(length: int, vocabulary: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    base = torch.randn(length, vocabulary) * 3
    return base, base + torch.randn(length, vocabulary) * 0.5, torch.randint(0, vocabulary, (length,))


def test_measures_by_definition() -> None:
    base, other, ids = tables(7, 20)
    [found] = compare_span(Given(base), [Given(other)], 0, ids, slice(0, 7), 20)
    for t in range(7):
        p = np.exp(base[t].double().numpy())
        q = np.exp(other[t].double().numpy())
        p, q = p / p.sum(), q / q.sum()
        assert found.kl[t] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-9)
        assert found.top1[t] == (p.argmax() == q.argmax())
        assert found.overlap[t] == len(set(np.argsort(-p)[:10]) & set(np.argsort(-q)[:10])) / 10
        if t < 6:
            target = int(ids[t + 1])
            assert found.nll_base[t] == pytest.approx(-np.log(p[target]), rel=1e-9)
            assert found.nll_candidate[t] == pytest.approx(-np.log(q[target]), rel=1e-9)
            assert found.rank_candidate[t] == 1 + (q > q[target]).sum()
    assert len(found.nll_base) == len(found.rank_base) == 6


@pytest.mark.parametrize("rows", [1, 3])
def test_chunks_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base, other, ids = tables(11, 30)
    [whole] = compare_span(Given(base), [Given(other)], 0, ids, slice(2, 11), 30)
    monkeypatch.setattr(tokens, "MEASURE_BYTES", 2 * 8 * 8 * 30)
    [parts] = compare_span(Given(base), [Given(other)], 0, ids, slice(2, 11), 30, logit_bytes=rows * 4 * 30 * 2)
    for name in tokens.NAMES:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.start == 2


def test_equal_models_differ_by_exactly_nothing() -> None:
    base, _, ids = tables(5, 4096)
    [found] = compare_span(Given(base), [Given(base.clone())], 0, ids, slice(0, 5), 4096)
    assert not found.kl.any()
    assert found.top1.all()
    assert (found.overlap == 1).all()


def test_far_apart_logits_stay_finite() -> None:
    kl = measure(torch.tensor([[0.0, 200.0]]), torch.tensor([[200.0, 0.0]]), torch.tensor([1]))[0]
    assert kl.tolist() == pytest.approx([200.0])


def test_damaged_logits_are_an_error() -> None:
    base, other, ids = tables(5, 20)
    other[3, 7] = float("nan")
    with pytest.raises(NonFiniteError, match="sequence 0 from position 3 on"):
        compare_span(Given(base), [Given(other)], 0, ids, slice(1, 5), 20)


def test_small_vocabulary() -> None:
    base, other, ids = tables(3, 4)
    [found] = compare_span(Given(base), [Given(other)], 0, ids, slice(0, 3), 4)
    assert (found.overlap == 1).all()


def test_between_cuts_by_position() -> None:
    base, other, ids = tables(6, 20)
    [found] = compare_span(Given(base), [Given(other)], 0, ids, slice(0, 6), 20)
    late = found.between(4, 8)
    assert late.kl.tolist() == found.kl[4:].tolist()
    assert late.nll_base.tolist() == found.nll_base[4:].tolist()
    assert len(late.nll_base) == 1
    assert len(found.between(6, 9).kl) == 0


def test_hidden_error_is_by_token() -> None:
    base = torch.tensor([[3.0, 4.0], [300.0, 400.0], [0.0, 0.0]])
    other = torch.tensor([[3.0, 3.0], [300.0, 400.0], [0.0, 0.0]])
    assert hidden_error(base, other).tolist() == pytest.approx([0.2, 0.0, 0.0])


def test_selection_overlap_counts_tokens_with_a_choice() -> None:
    base = torch.tensor([[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 0, 1], [4, 0, 1]])
    other = torch.tensor([[0, -1, -1], [0, 1, -1], [0, 1, 2], [1, 3, 0], [2, 3, 0]])
    shares = selection_overlap(base, other, torch.arange(5))
    assert shares.tolist() == pytest.approx([1.0, 1 / 3])
    assert not len(selection_overlap(base[:2], other[:2], torch.arange(2)))
