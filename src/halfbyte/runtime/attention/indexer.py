"""The indexer: which top_k tokens each query attends to, without ever holding S x T scores.

score(s, t) = sum over heads h of  w[s, h] * relu(q[s, h] . k[t] / sqrt(D)),  w already divided by sqrt(heads)
(DeepSeek-V3.2, section 2.1; order of operations and float32 as `GlmMoeDsaIndexer.forward` of transformers 5.23).
Queries are handled in chunks, and for each chunk the keys in chunks, keeping a running top-k.

Ties. relu makes exact ties common (score 0). Which of several equal scores `torch.topk` returns is unspecified and
depends on the length of the row, so a running top-k could select other tokens than transformers does. The running
top-k therefore keeps one score more than asked for: when the last kept and the first dropped score are equal, and only
then, that row is scored once more as a whole and given to `torch.topk` exactly as transformers does.
"""

from dataclasses import dataclass

import torch

from halfbyte.runtime.attention.options import AttentionOptions
from halfbyte.runtime.attention.visibility import Visibility

NOTHING = -1


@dataclass(frozen=True)
class Selection:
    """indices: int32 [B, S, top_k], slots in no particular order, NOTHING where a query sees fewer than top_k.

    None: there are at most top_k slots, so every query attends to all it can see. Shared layers get the object of the
    last full layer, as it is.
    """

    indices: torch.Tensor | None

    def to(self, device: torch.device) -> "Selection":
        """The same on another device."""
        return self if self.indices is None else Selection(self.indices.to(device))


@dataclass(frozen=True)
class IndexQueries:
    """What scoring needs of the queries. q: [B, S, H, D] any dtype; weights: float32 [B, S, H]; scale: D ** -0.5."""

    q: torch.Tensor
    weights: torch.Tensor
    scale: float

    def scores(self, batch: slice, queries: slice | torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Index scores, float32 [B', S', T'], of some queries against keys [B', T', D]. Needs H times that as scratch.

        The scale is applied to the products and not folded into q or w: exact ties and near ties then fall as in
        transformers.
        """
        q = self.q[batch, queries].float()
        rows, count, heads, width = q.shape
        products = torch.matmul(q.reshape(rows, count * heads, width), keys.float().transpose(1, 2))
        products.mul_(self.scale).relu_()
        weights = self.weights[batch, queries].unsqueeze(-2)
        return torch.matmul(weights, products.view(rows, count, heads, -1)).squeeze(-2)


def select(
    index: IndexQueries, keys: torch.Tensor, past: int, visibility: Visibility, top_k: int, options: AttentionOptions
) -> Selection:
    """The top_k visible slots of every query.

    keys: [B, T, D], T = past + S. Scratch: options.scratch_bytes. Cost: S * T * H * D multiplications, less the future.
    """
    batch, num_queries, heads, _ = index.q.shape
    num_keys = keys.shape[1]
    if num_keys <= top_k:
        return Selection(None)
    key_chunk = min(num_keys, options.keys(top_k))
    step = options.queries(batch * 4 * (heads * key_chunk + 4 * (key_chunk + top_k)), keys.device)
    indices = torch.empty(batch, num_queries, top_k, dtype=torch.int32, device=keys.device)
    for start in range(0, num_queries, step):
        queries = range(start, min(start + step, num_queries))
        values, slots = _running_top_k(index, keys, queries, past, visibility, top_k + 1, key_chunk)
        tied = (values[..., top_k - 1] == values[..., top_k]) & (values[..., top_k] > -torch.inf)
        slots = slots.masked_fill_(values == -torch.inf, NOTHING)[..., :top_k]
        indices[:, queries.start : queries.stop] = slots
        for b in range(batch):
            rows = tied[b].nonzero()[:, 0] + start
            group = max(1, step * key_chunk // num_keys)
            for at in range(0, len(rows), group):
                some = rows[at : at + group]
                indices[b, some] = _as_topk_does(index, keys, b, some, past, visibility, top_k, key_chunk)
    return Selection(indices)


def _running_top_k(
    index: IndexQueries,
    keys: torch.Tensor,
    queries: range,
    past: int,
    visibility: Visibility,
    count: int,
    key_chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best scores of each query, descending, float32 [B, S', count], and their slots, int32.

    -inf stands for a score that is hidden or does not exist.
    """
    batch, device = keys.shape[0], keys.device
    values = torch.full((batch, len(queries), count), -torch.inf, device=device)
    slots = torch.full((batch, len(queries), count), NOTHING, dtype=torch.int32, device=device)
    rows = slice(queries.start, queries.stop)
    last = past + queries.stop  # slots from here on are the future of every query of the chunk
    for start in range(0, last, key_chunk):
        chunk = range(start, min(start + key_chunk, last))
        scores = index.scores(slice(None), rows, keys[:, chunk.start : chunk.stop])
        hidden = visibility.hidden(queries, past, chunk, device)
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        values, at = torch.cat([values, scores], dim=-1).topk(count, dim=-1)
        known = slots.gather(-1, at.clamp(max=count - 1))
        slots = torch.where(at < count, known, (at + (chunk.start - count)).to(torch.int32))
    return values, slots


def _as_topk_does(
    index: IndexQueries,
    keys: torch.Tensor,
    sequence: int,
    queries: torch.Tensor,
    past: int,
    visibility: Visibility,
    top_k: int,
    key_chunk: int,
) -> torch.Tensor:
    """Selection of some queries of one sequence by `torch.topk` over whole rows, future included: int32 [n, top_k].

    What transformers calls, on what it calls it with. Only for rows with more than top_k visible slots, so that no
    hidden one can be selected.
    """
    num_keys, device = keys.shape[1], keys.device
    one = slice(sequence, sequence + 1)
    scores = torch.full((len(queries), num_keys), -torch.inf, device=device)
    last = past + int(queries[-1]) + 1
    for start in range(0, last, key_chunk):
        stop = min(start + key_chunk, last)
        scores[:, start:stop] = index.scores(one, queries, keys[one, start:stop])[0]
    scores.masked_fill_(torch.arange(num_keys, device=device) > past + queries[:, None], -torch.inf)
    if visibility.padding is not None:
        scores.masked_fill_(~visibility.padding[sequence], -torch.inf)
    return scores.topk(top_k).indices.to(torch.int32)
