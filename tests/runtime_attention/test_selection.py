"""The selected set is the one of transformers' indexer: every row, exact ties included."""

from typing import Any

import pytest

from halfbyte.modules.attention import AttentionOptions
from halfbyte.modules.attention.forward import SparseForward
from halfbyte.modules.attention.indexer import IndexQueries, Selection, select
from halfbyte.modules.attention.install import sparse_attention
from halfbyte.modules.attention.visibility import Visibility

from .models import eager_and_ours, in_chunks, small, text, tiny, tokens, torch

CHUNKINGS = [AttentionOptions(), AttentionOptions(query_chunk=7, key_chunk=50), AttentionOptions(key_chunk=1)]


def theirs(q: Any, weights: Any, keys: Any, past: int, padding: Any, top_k: int) -> Any:
    """`GlmMoeDsaIndexer.forward` of transformers 5.23 from the scores on, eager mask and all: indices [B, S, k]."""
    scores = torch.relu(torch.matmul(q.float(), keys.transpose(-1, -2).float().unsqueeze(1)) * q.shape[-1] ** -0.5)
    scores = torch.matmul(weights.unsqueeze(-2), scores).squeeze(-2)
    seen = torch.arange(keys.shape[1]) <= past + torch.arange(q.shape[1])[:, None]
    seen = seen & (torch.ones_like(seen) if padding is None else padding[:, None])
    scores = scores + torch.zeros(()).masked_fill(~seen, torch.finfo(torch.float32).min)
    return scores.topk(min(top_k, keys.shape[1]), dim=-1).indices, seen.expand(len(q), -1, -1)


def as_sets(indices: Any, seen: Any) -> list[list[set[int]]]:
    """Visible selected slots of each query."""
    rows = [[set(row) - {-1} for row in sequence] for sequence in indices.tolist()]
    return [[{t for t in row if seen[b, s, t]} for s, row in enumerate(sequence)] for b, sequence in enumerate(rows)]


def random_case(kind: str, batch: int = 2, queries: int = 40, keys: int = 130) -> tuple[IndexQueries, Any]:
    """Scores without ties, with many exact ones, or with nothing but ties.

    Four heads as in tiny-glm (GLM-5.2: 32). With three, MKL rounds by where a row lies in memory, and transformers' own
    choice among ties changes with the batch.
    """
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(batch, queries, 4, 16, generator=generator)
    k = torch.randn(batch, keys, 16, generator=generator)
    weights = torch.randn(batch, queries, 4, generator=generator)
    if kind == "some-ties":  # keys repeat, and relu gives zeros that negative weights put in the middle
        k = k[:, torch.randint(0, 12, (keys,), generator=generator)]
    if kind == "all-ties":
        weights.zero_()
    return IndexQueries(q, weights, q.shape[-1] ** -0.5), k


@pytest.mark.parametrize("options", CHUNKINGS, ids=["default", "odd", "one-key"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("kind", ["no-ties", "some-ties", "all-ties"])
def test_same_set(kind: str, padded: bool, options: AttentionOptions) -> None:
    index, keys = random_case(kind)
    padding = None
    if padded:
        padding = torch.ones(2, 130, dtype=torch.bool)
        padding[0, :95] = False  # the first queries see fewer keys than top_k
    past = 130 - 40
    ours = select(index, keys, past, Visibility(padding), 16, options).indices
    assert ours is not None
    expected, seen = theirs(index.q, index.weights, keys, past, padding, 16)
    assert as_sets(ours, seen) == as_sets(expected, seen)
    missing = ours.lt(0).sum(-1)
    assert missing.tolist() == (16 - seen.sum(-1)).clamp(min=0).tolist()


def test_ties_do_straddle_the_boundary_in_these_cases() -> None:
    index, keys = random_case("some-ties")
    scores = torch.relu(torch.einsum("bshd,btd->bsht", index.q, keys) * index.scale)
    best = torch.einsum("bsh,bsht->bst", index.weights, scores).topk(17, dim=-1).values
    assert (best[..., 15] == best[..., 16]).float().mean() > 0.5


def test_no_more_keys_than_top_k_need_no_scores() -> None:
    index, keys = random_case("no-ties", keys=16)
    assert select(index, keys, 0, Visibility(None), 16, AttentionOptions()) == Selection(None)


@pytest.mark.parametrize("options", CHUNKINGS[:2], ids=["default", "odd"])
def test_learned_indexer_on_text(options: AttentionOptions) -> None:
    """Inputs of each of tiny-glm's indexers as they are in an eager pass; the same set in every row."""
    calls = []
    model = tiny()
    hooks = [
        layer.self_attn.indexer.register_forward_hook(lambda module, args, out: calls.append((args[:3], out)))
        for layer in model.model.layers[:3]
    ]
    with torch.no_grad():
        model(text(500))
        for hook in hooks:
            hook.remove()
        for layer, ((hidden, residual, positions, *_), expected) in zip(model.model.layers, calls, strict=False):
            known = sparse_attention("glm_moe_dsa")
            assert known is not None
            ours = SparseForward(layer.self_attn, known, options)
            index = ours._index_queries(hidden, residual, *positions)
            keys = ours._index_keys(hidden, *positions)
            indices = select(index, keys, 0, Visibility(None), 256, options).indices
            seen = torch.ones(500, 500, dtype=torch.bool).tril()[None]
            assert as_sets(indices, seen) == as_sets(expected, seen)
    assert len(calls) == 3


@pytest.mark.parametrize("sizes", [[70], [30, 40], [64, 1, 1, 1, 1, 1, 1]])
def test_logits_when_every_score_ties(sizes: list[int]) -> None:
    """Eager's choice among ties depends on its calls, so both are called alike."""
    model, ids = small(), tokens(2, 70)
    for layer in model.model.layers[:2]:
        layer.self_attn.indexer.weights_proj.weight.data.zero_()
    expected, ours = eager_and_ours(model, lambda m: in_chunks(m, ids, sizes), AttentionOptions(dense_factor=1))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
