"""Where in the depth two models part: hidden states, chosen experts and the indexer's selection, layer by layer."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from halfbyte.stream.observer import Observer

SELECTION_BYTES = 128 << 20
"""Room for the baseline's selections of one layer; of longer data, evenly spaced tokens are looked at."""


@dataclass
class Mean:
    """A running mean; None if nothing was added."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        self.total += float(values.double().sum())
        self.count += values.numel()

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class BaseChoices(Observer):
    """Keeps what the baseline chose in the layer at hand: sorted expert sets, and the selections of some tokens.

    rows: for each candidate, the finished layers' figures. They are kept with the baseline's layers, so that a run
    that was killed goes on with all of them.
    """

    def __init__(self, sequences: Sequence[Tensor], counted: int, index_topk: int, candidates: int) -> None:
        """counted: the first so many sequences are compared, the others are not looked at."""
        self.counted = counted
        self.rows: list[list[dict[str, Any]]] = [[] for _ in range(candidates)]
        tokens = sum(len(ids) for ids in sequences[:counted])
        self.stride = max(1, -(-tokens * index_topk * 4 // SELECTION_BYTES))
        self.experts: dict[int, Tensor] = {}
        self.selections: dict[int, Tensor] = {}

    def forget(self) -> None:
        self.experts.clear()
        self.selections.clear()

    def state(self) -> bytes:
        return _saved({"experts": self.experts, "selections": self.selections, "rows": self.rows})

    def load(self, state: bytes) -> None:
        kept = _loaded(state)
        self.experts, self.selections, self.rows = kept["experts"], kept["selections"], kept["rows"]

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        if sequence < self.counted:
            self.experts[sequence] = expert_index.sort(-1).values.to("cpu", torch.int16)

    def selection(self, layer: int, sequence: int, indices: Tensor) -> None:
        if sequence < self.counted:
            self.selections[sequence] = indices[:: self.stride].to("cpu", torch.int32, copy=True)


class CandidateChoices(Observer):
    """Holds a candidate's choices against the baseline's, in the layer at hand."""

    def __init__(self, base: BaseChoices) -> None:
        self._base = base
        self.reset()

    def reset(self) -> None:
        self.same_experts, self.same_keys, self.selected = Mean(), Mean(), False

    def state(self) -> bytes:
        means = [[mean.total, mean.count] for mean in (self.same_experts, self.same_keys)]
        return _saved({"means": means, "selected": self.selected})

    def load(self, state: bytes) -> None:
        kept = _loaded(state)
        self.same_experts, self.same_keys = (Mean(*mean) for mean in kept["means"])
        self.selected = kept["selected"]

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        if sequence < self._base.counted:
            own = expert_index.sort(-1).values.to("cpu", torch.int16)
            self.same_experts.add((own == self._base.experts[sequence]).all(-1))

    def selection(self, layer: int, sequence: int, indices: Tensor) -> None:
        if sequence < self._base.counted:
            self.selected = True
            stride = self._base.stride
            positions = torch.arange(0, len(indices), stride)
            own = indices[::stride].to("cpu", torch.int32)
            self.same_keys.add(selection_overlap(self._base.selections[sequence], own, positions))

    def row(self, layer: int, hidden_error: float | None) -> dict[str, Any]:
        """One entry of `layers`. router_agreement: share of tokens whose set of experts is the same, null if dense.

        indexer_overlap: share of the baseline's selected keys that the candidate selects too, over tokens that can
        see more keys than they may select; 1 where no token can; null for layers without an indexer of their own.
        """
        overlap = self.same_keys.value if self.same_keys.count else 1.0
        return {
            "layer": layer,
            "hidden_error": hidden_error,
            "router_agreement": self.same_experts.value,
            "indexer_overlap": overlap if self.selected else None,
        }


def _saved(document: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def _loaded(state: bytes) -> dict[str, Any]:
    document: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return document


def selection_overlap(base: Tensor, other: Tensor, positions: Tensor) -> Tensor:
    """Share of the keys in `base` that are in `other` too, for the tokens at `positions` that had a choice.

    base, other: int32 [n, k], -1 for none, otherwise distinct in a row. positions: int64 [n]. Returns float64 [<= n].
    """
    chosen = (base >= 0).sum(-1)
    choice = chosen < positions + 1
    base, other, chosen = base[choice].long(), other[choice].long(), chosen[choice]
    if not len(base):
        return torch.zeros(0, dtype=torch.float64)
    width = int(max(base.max(), other.max())) + 2
    rows = torch.arange(len(base))[:, None] * width
    both = torch.isin((rows + base)[base >= 0], (rows + other)[other >= 0])
    owner = torch.arange(len(base))[:, None].expand_as(base)[base >= 0]
    return torch.bincount(owner, both.double(), minlength=len(base)) / chosen


def hidden_error(base: Tensor, other: Tensor) -> Tensor:
    """‖base - other‖ / ‖base‖ of every token. base, other: [T, H]. Returns float64 [T].

    By token, not over all at once: a few tokens with huge states would else decide alone.
    """
    base = base.double()
    distance = torch.linalg.vector_norm(base - other.double(), dim=-1)
    return torch.where(distance == 0, 0.0, distance / torch.linalg.vector_norm(base, dim=-1))
