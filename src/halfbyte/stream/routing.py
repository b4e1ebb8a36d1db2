"""From each token's choice of experts to each expert's rows, in the order in which transformers would visit them.

transformers takes one sequence at a time and asks, for each expert, which (choice, token) pairs name it: choices in
the outer loop, tokens in the inner one. Here all sequences are sorted by expert at once, stably, so that an expert's
rows come sequence by sequence and, inside one, in transformers' order. In float32 the results are then the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class ExpertRows:
    """The rows of one expert. token: int64 [n], row of the token among all sequences. weight: [n], its router weight.

    energy: float32 [n], mean square of the residual that the expert's output is added to.
    parts: where a sequence's rows begin and end, for the sequences that have any.
    """

    token: Tensor
    weight: Tensor
    energy: Tensor
    parts: list[slice]

    def importance(self) -> Tensor:
        """float32 [n]: what a squared error of the expert's output counts for in the token's next hidden state, once
        that is normalised. 0 where the residual is all zeros."""
        squared = self.weight.float().square()
        return torch.where(self.energy > 0, squared / self.energy, 0.0)

    def between(self, first: int, stop: int) -> "ExpertRows":
        """Those of tokens `first` to `stop` - 1; both are where a sequence begins, or the end."""
        lengths = [(int(self.token[part.start]), part) for part in self.parts]
        parts = [part for token, part in lengths if first <= token < stop]
        if not parts:
            return ExpertRows(self.token[:0], self.weight[:0], self.energy[:0], [])
        rows = slice(parts[0].start, parts[-1].stop)
        moved = [slice(part.start - rows.start, part.stop - rows.start) for part in parts]
        return ExpertRows(self.token[rows], self.weight[rows], self.energy[rows], moved)

    def chunks(self, rows: int | None) -> Iterator[slice]:
        """Rows that are computed together: each sequence alone (None), or `rows` at a time whatever the sequence."""
        if rows is None:
            yield from self.parts
            return
        for start in range(0, len(self.token), rows):
            yield slice(start, min(start + rows, len(self.token)))


class Routing:
    """The routing of one layer, gathered sequence by sequence, then sorted by expert."""

    def __init__(self, offsets: Sequence[int], num_experts: int) -> None:
        """offsets: first row of each sequence, and the number of rows at the end. num_experts: that tokens may go to,
        with weights or without."""
        self._offsets, self.choices = offsets, num_experts
        self.index: list[Tensor | None] = [None] * (len(offsets) - 1)
        self.weights: list[Tensor | None] = [None] * (len(offsets) - 1)
        self._energy: list[Tensor] = [torch.empty(0)] * (len(offsets) - 1)

    def put(self, sequence: int, index: Tensor, weights: Tensor, energy: Tensor) -> None:
        """index: int64 [T, top_k]; weights: [T, top_k]; energy: float32 [T], of the residual."""
        self.index[sequence], self.weights[sequence], self._energy[sequence] = index, weights, energy

    def skip(self, sequence: int, like: int) -> None:
        """A sequence that does not go through this layer. like: one that does."""
        index, weights = self.of(like)
        length = self._offsets[sequence + 1] - self._offsets[sequence]
        self.put(sequence, index[:0], weights[:0], torch.zeros(length, device=index.device))

    def of(self, sequence: int) -> tuple[Tensor, Tensor]:
        index, weights = self.index[sequence], self.weights[sequence]
        assert index is not None
        assert weights is not None
        return index, weights

    def sort(self) -> None:
        """Order all (token, choice) pairs by expert, sequence, choice and token."""
        experts, tokens, sequences, weights = [], [], [], []
        for sequence, start in enumerate(self._offsets[:-1]):
            index, weight = self.of(sequence)
            length, choices = index.shape
            experts.append(index.t().reshape(-1))
            tokens.append((torch.arange(length, device=index.device) + start).repeat(choices))
            sequences.append(torch.full((length * choices,), sequence, dtype=torch.int32, device=index.device))
            weights.append(weight.t().reshape(-1))
        expert = torch.cat(experts)
        order = expert.argsort(stable=True)
        self._token, self._weight = torch.cat(tokens)[order], torch.cat(weights)[order]
        pairs = expert[order] * len(sequences) + torch.cat(sequences)[order]
        counts = torch.bincount(pairs, minlength=self.choices * len(sequences))
        self._counts = counts.view(self.choices, len(sequences)).cpu()
        self._energies = torch.cat(self._energy)

    def counts(self) -> Tensor:
        """int64 [experts]: rows of each."""
        return self._counts.sum(1)

    def expert(self, number: int) -> ExpertRows:
        start = int(self._counts[:number].sum())
        own = self._counts[number]
        bounds = [0, *torch.cumsum(own, 0).tolist()]
        rows = slice(start, start + bounds[-1])
        parts = [slice(a, b) for a, b in pairwise(bounds) if b > a]
        token = self._token[rows]
        return ExpertRows(token, self._weight[rows], self._energies[token], parts)
