"""The indexer: which top_k tokens each query attends to, without ever holding S x T scores.

score(s, t) = sum over heads h of  w[s, h] * relu(q[s, h] . k[t] / sqrt(D)),  w already divided by sqrt(heads)
(DeepSeek-V3.2, section 2.1; order of operations and float32 as `GlmMoeDsaIndexer.forward` of transformers 5.23).
Queries are handled in chunks, and for each chunk the keys in chunks, keeping a running top-k.

Ties. relu makes exact ties common (score 0). Which of several equal scores `torch.topk` returns is unspecified and
depends on the length of the row, and what ties, or nearly ties, depends on how a matrix product rounds, which changes
with its shape. The running top-k therefore keeps one score more than asked for: when the last kept and the first
dropped score are closer than rounding can tell, and only then, that row is scored once more as a whole, in the way of
transformers, and given to `torch.topk`. The selected set is thereby the same in every row for the same inputs.
"""

from dataclasses import dataclass

import torch

from halfbyte.modules.attention.options import AttentionOptions
from halfbyte.modules.attention.visibility import Visibility

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

    def scores(self, queries: slice, keys: torch.Tensor) -> torch.Tensor:
        """Index scores of some queries against keys [B, T', D]: float32 [B, S', T'], and H times that as scratch."""
        q = self.q[:, queries].float()
        rows, count, heads, width = q.shape
        products = torch.matmul(q.reshape(rows, count * heads, width), keys.float().transpose(1, 2))
        products.mul_(self.scale).relu_()
        weights = self.weights[:, queries].unsqueeze(-2)
        return torch.matmul(weights, products.view(rows, count, heads, -1)).squeeze(-2)

    def scores_as_transformers(self, sequence: slice, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The same for one sequence, rounded as by transformers: float32 [n, T]. Needs H * n * T numbers of scratch.

        One product per query, which transformers hands to the library row-major when broadcasting has copied the keys
        (several sequences and several queries), and transposed otherwise. The layout decides how sums are rounded.
        """
        q = self.q[sequence, queries].float()
        transposed = keys[sequence].transpose(-1, -2).float()
        if self.q.shape[0] > 1 and self.q.shape[1] > 1:
            transposed = transposed.contiguous()
        products = torch.relu(torch.matmul(q, transposed.unsqueeze(1)) * self.scale)
        return torch.matmul(self.weights[sequence, queries].unsqueeze(-2), products).squeeze(-2)[0]

    def rounding(self, keys: torch.Tensor) -> torch.Tensor:
        """Differences of scores that rounding can make, float32 [B, S]: 2 eps times a bound of the scores.

        |score| <= scale * sum_h |w_h| |q_h| * max_t |k_t| (Cauchy-Schwarz). Products of D random terms err by about
        eps / sqrt(D) of that, so 2 eps is many times what is seen.
        """
        largest = keys.norm(dim=-1, dtype=torch.float32).amax(-1)[:, None]
        bound = (self.weights.abs() * self.q.norm(dim=-1, dtype=torch.float32)).sum(-1)
        rounding: torch.Tensor = 2 * torch.finfo(torch.float32).eps * self.scale * bound * largest
        return rounding


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
    rounding = index.rounding(keys)
    group = options.queries(8 * num_keys * heads, keys.device)
    indices = torch.empty(batch, num_queries, top_k, dtype=torch.int32, device=keys.device)
    for start in range(0, num_queries, step):
        queries = range(start, min(start + step, num_queries))
        values, slots = _running_top_k(index, keys, queries, past, visibility, top_k + 1, key_chunk)
        gap = values[..., top_k - 1] - values[..., top_k]  # NaN where both are hidden, inf where one is
        tied = gap <= rounding[:, queries.start : queries.stop]
        slots = slots.masked_fill_(values == -torch.inf, NOTHING)[..., :top_k]
        indices[:, queries.start : queries.stop] = slots
        for b in range(batch):
            rows = tied[b].nonzero()[:, 0] + start
            for at in range(0, len(rows), group):
                some = rows[at : at + group]
                indices[b, some] = _as_transformers(index, keys, b, some, past, visibility, top_k)
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
        scores = index.scores(rows, keys[:, chunk.start : chunk.stop])
        hidden = visibility.hidden(queries, past, chunk, device)
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        values, at = torch.cat([values, scores], dim=-1).topk(count, dim=-1)
        known = slots.gather(-1, at.clamp(max=count - 1))
        slots = torch.where(at < count, known, (at + (chunk.start - count)).to(torch.int32))
    return values, slots


def _as_transformers(
    index: IndexQueries,
    keys: torch.Tensor,
    sequence: int,
    queries: torch.Tensor,
    past: int,
    visibility: Visibility,
    top_k: int,
) -> torch.Tensor:
    """Selection of some queries of one sequence by `torch.topk` over whole rows, future included: int32 [n, top_k].

    Only for rows with more than top_k visible slots, so that no hidden one can be selected.
    """
    scores = index.scores_as_transformers(slice(sequence, sequence + 1), queries, keys)
    future = torch.arange(keys.shape[1], device=keys.device) > past + queries[:, None]
    scores = scores.masked_fill(future, -torch.inf)
    if visibility.padding is not None:
        scores = scores.masked_fill(~visibility.padding[sequence], -torch.inf)
    return scores.topk(top_k).indices.to(torch.int32)
