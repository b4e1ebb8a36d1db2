"""What two models say about the same tokens: one number per token and measure, from logits that come in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from halfbyte.errors import NonFiniteError

TOP_K = 10
"""Size of the sets of likeliest tokens whose overlap is measured."""
LOGIT_BYTES = 512 << 20
"""What one chunk of float32 logits of all models may take: large, for a head that is not held is read per chunk."""
MEASURE_BYTES = 128 << 20
"""What the float64 copies of the part of a chunk that is being measured may take."""
_COPIES = 8
"""float64 [rows, V] alive at once, counted in `measure`."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenMeasures:
    """Per token of one span, float64. Positions: kl, top1 (1 or 0), overlap (share of the top 10).

    Predictions, where a next token is known: negative log-likelihoods in nats, and ranks (1: the likeliest).
    start: position of the first token of the span in its document.
    """

    start: int
    kl: Array
    top1: Array
    overlap: Array
    nll_base: Array
    nll_candidate: Array
    rank_base: Array
    rank_candidate: Array

    def between(self, start: int, stop: int) -> "TokenMeasures":
        """The tokens at positions start to stop - 1 of the document."""
        part = slice(max(start - self.start, 0), max(stop - self.start, 0))
        arrays = (getattr(self, name)[part] for name in NAMES)
        return TokenMeasures(max(start, self.start), *arrays)


NAMES = ("kl", "top1", "overlap", "nll_base", "nll_candidate", "rank_base", "rank_candidate")


class Predictor(Protocol):
    """The last step of a streamed model: float32 [stop - start, V]."""

    def logits(self, sequence: int, start: int, stop: int) -> Tensor: ...


@torch.no_grad()
def compare_span(
    base: Predictor,
    candidates: Sequence[Predictor],
    sequence: int,
    ids: Tensor,
    span: slice,
    vocab_size: int,
    logit_bytes: int = LOGIT_BYTES,
) -> list[TokenMeasures]:
    """Measures of each candidate against `base` at positions span.start to span.stop - 1 of one sequence.

    ids: int64 [T], the whole sequence. The position T - 1 has no next token: it counts for kl, top1 and overlap only.
    Raises NonFiniteError for logits that are NaN or infinite.
    """
    rows = max(1, logit_bytes // (4 * vocab_size * (1 + len(candidates))))
    parts: list[list[list[Tensor]]] = [[] for _ in candidates]
    for start in range(span.start, span.stop, rows):
        stop = min(start + rows, span.stop)
        targets = ids[start + 1 : stop + 1]
        base_logits = base.logits(sequence, start, stop)
        for found, candidate in zip(parts, candidates, strict=True):
            logits = candidate.logits(sequence, start, stop)
            found += measure_in_parts(base_logits, logits, targets.to(base_logits.device))
    measures = []
    for found in parts:
        columns = (torch.cat(column).cpu().numpy().astype(np.float64) for column in zip(*found, strict=True))
        measures.append(TokenMeasures(span.start, *columns))
        _check_finite(measures[-1], sequence)
    return measures


def _check_finite(found: TokenMeasures, sequence: int) -> None:
    """Raise NonFiniteError for a model whose logits are NaN or infinite."""
    wrong = ~np.isfinite(found.kl)
    if wrong.any():
        position = found.start + int(wrong.argmax())
        raise NonFiniteError(
            f"logits that are not finite, in sequence {sequence} from position {position} on",
            hint="one of the two models is damaged or overflows; run `halfbyte verify` on the candidate",
        )


def measure_in_parts(base: Tensor, candidate: Tensor, targets: Tensor) -> list[list[Tensor]]:
    """`measure` over a chunk, some rows at a time."""
    rows = max(1, MEASURE_BYTES // (8 * _COPIES * base.shape[1]))
    starts = range(0, len(base), rows)
    return [measure(base[a : a + rows], candidate[a : a + rows], targets[a : a + rows]) for a in starts]


def measure(base: Tensor, candidate: Tensor, targets: Tensor) -> list[Tensor]:
    """Columns of `TokenMeasures` from float logits [n, V] of both; targets: int64 [m], m = n, or n - 1 at the end.

    In float64: a KL of 1e-8 is then still a number, and equal logits give exactly 0.
    """
    p, q = base.double().log_softmax(-1), candidate.double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    top1 = p.argmax(-1) == q.argmax(-1)
    size = min(TOP_K, p.shape[-1])
    likeliest, other = p.topk(size).indices, q.topk(size).indices
    overlap = (likeliest[:, :, None] == other[:, None, :]).sum((1, 2)).double() / size
    columns = [kl, top1, overlap]
    known = len(targets)
    chosen = [values[:known].gather(1, targets[:, None]) for values in (p, q)]
    columns += [-values.squeeze(1) for values in chosen]
    columns += [(values[:known] > own).sum(-1) + 1 for values, own in zip((p, q), chosen, strict=True)]
    return columns
