"""One pass over the layers of a baseline and its candidates, in lockstep: each reads one layer, runs it, frees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from halfbyte.compare.layers import BaseChoices, CandidateChoices, Mean, hidden_error
from halfbyte.compare.tokens import LOGIT_BYTES, TokenMeasures, compare_span
from halfbyte.progress import Progress
from halfbyte.stream.observer import Observer


class Streaming(Protocol):
    """What is asked of `stream.executor.Streamed`; see there."""

    layers: int
    vocab_size: int
    config: Any
    next_layer: int

    def start(self, sequences: Sequence[Tensor], key: str = "", anew: bool = False) -> None: ...
    def step(self, observer: Observer | None = None) -> int: ...
    def restore(self, observer: Observer) -> None: ...
    def hidden(self, sequence: int) -> Tensor: ...
    def logits(self, sequence: int, start: int, stop: int) -> Tensor: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Spans:
    """What to run and what to measure. ids: int64 [T] each. spans: positions whose tokens are measured.

    counted: the first so many sequences count for the layers' figures. logit_bytes: room for one chunk of logits.
    """

    ids: list[Tensor]
    spans: list[slice]
    counted: int
    logit_bytes: int = LOGIT_BYTES


@dataclass(frozen=True)
class Difference:
    """One candidate against the baseline: token measures by sequence, and one row a layer."""

    tokens: list[TokenMeasures]
    layers: list[dict[str, Any]]


class Lockstep:
    """Runs the pass. Peak memory is that of the models plus one chunk of logits and one layer's choices."""

    def __init__(
        self,
        base: Streaming,
        candidates: Sequence[Streaming],
        work: Spans,
        observers: Sequence[Callable[[BaseChoices], CandidateChoices]] | None = None,
    ) -> None:
        """observers: makes each candidate's; for what changes weights as they stream by."""
        self._base, self._candidates, self._work = base, candidates, work
        topk = getattr(base.config, "index_topk", None) or 0
        self._choices = BaseChoices(work.ids, work.counted, topk, len(candidates))
        self._against = [make(self._choices) for make in observers or [CandidateChoices] * len(candidates)]

    @torch.no_grad()
    def run(self, progress: Progress, layer_bytes: int) -> list[Difference]:
        """layer_bytes: what one layer of all models together reads, for the progress bar.

        Models that were opened with a work folder go on where an earlier run of the same job was killed. The baseline
        is at most one layer ahead then, and holds the rows of all layers but its last.
        """
        models = (self._base, *self._candidates)
        for model in models:
            model.start(self._work.ids)
        if not self._side_by_side():
            progress.note("what is left of the models does not fit together; all start again from the first layer")
            for model in models:
                model.start(self._work.ids, anew=True)
        self._base.restore(self._choices)
        first = len(self._choices.rows[0])
        progress.start("comparing", layer_bytes * self._base.layers, layer_bytes * first)
        for layer in range(first, self._base.layers):
            self._layer(layer)
            progress.advance(layer_bytes)
        tokens = self._token_measures(progress)
        return [Difference(*pair) for pair in zip(tokens, self._choices.rows, strict=True)]

    def _side_by_side(self) -> bool:
        """Whether the models are where one run left them: the baseline at the candidates' layer or one ahead."""
        base = self._base.next_layer
        return all(model.next_layer in ({base - 1, base} if base else {0}) for model in self._candidates)

    def _layer(self, layer: int) -> None:
        if self._base.next_layer == layer:
            self._choices.forget()
            self._base.step(self._choices)
        for model, against, rows in zip(self._candidates, self._against, self._choices.rows, strict=True):
            model.restore(against)
            if model.next_layer == layer:
                against.reset()
                model.step(against)
            error = Mean()
            for sequence in range(self._work.counted):
                error.add(hidden_error(self._base.hidden(sequence), model.hidden(sequence)))
            rows.append(against.row(layer, error.value))

    def _token_measures(self, progress: Progress) -> list[list[TokenMeasures]]:
        found: list[list[TokenMeasures]] = [[] for _ in self._candidates]
        progress.start("logits", sum(span.stop - span.start for span in self._work.spans))
        for sequence, (ids, span) in enumerate(zip(self._work.ids, self._work.spans, strict=True)):
            models, size = (self._base, self._candidates), self._base.vocab_size
            measures = compare_span(*models, sequence, ids, span, size, self._work.logit_bytes)
            for column, one in zip(found, measures, strict=True):
                column.append(one)
            progress.advance(span.stop - span.start)
        return found
