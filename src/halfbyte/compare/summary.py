"""From numbers per token to the figures that are shown: all tokens, slices, positions, the worst documents."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from halfbyte.compare.tokens import TOP_K, TokenMeasures
from halfbyte.data.document import Document
from halfbyte.errors import UsageError, said
from halfbyte.numbers.clustered import Estimate, clustered_mean, exp

FIRST_BIN = 128
"""Positions below it are one bin; the bins after it double."""
WORST = 10
UNLABELLED = "(none)"
NOTHING = {"mean": None, "low": None, "high": None}


def summary(documents: Sequence[TokenMeasures]) -> dict[str, Any]:
    """Figures of one set of documents: `tokens`, `documents`, `kl`, `perplexity`, `top1_agreement`, `topk_overlap`.

    Intervals are 95 %, clustered by document; null with one document. Perplexity is over next-token predictions, its
    ratio candidate / base comes from the paired differences of log-likelihoods, on the log scale.
    """
    filled = [document for document in documents if len(document.kl)]
    return {
        "tokens": sum(len(document.kl) for document in filled),
        "documents": len(filled),
        "kl": _shown(clustered_mean([document.kl for document in filled]), 0, np.inf),
        "perplexity": _perplexity(filled),
        "top1_agreement": _shown(clustered_mean([document.top1 for document in filled]), 0, 1),
        "topk_overlap": {"k": TOP_K} | _shown(clustered_mean([document.overlap for document in filled]), 0, 1),
    }


def slices(
    fields: Sequence[str], documents: Sequence[Document], measures: Sequence[TokenMeasures]
) -> dict[str, dict[str, Any]]:
    """{field: {value: summary}}. Raises UsageError for a field that no document has."""
    known = sorted({field for document in documents for field in document.labels})
    result: dict[str, dict[str, Any]] = {}
    for field in fields:
        check_field(field, known)
        values: dict[str, list[TokenMeasures]] = {}
        for document, one in zip(documents, measures, strict=True):
            values.setdefault(document.labels.get(field, UNLABELLED), []).append(one)
        result[field] = {value: summary(values[value]) for value in sorted(values)}
    return result


def check_field(field: str, known: Sequence[str]) -> None:
    """Raise UsageError if no document carries the label `field`."""
    if field not in known:
        near = get_close_matches(field, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"fields of the data: {', '.join(known) or 'none'}"
        raise UsageError(said("{slice} {field}: no row of the data has this field", field=field), hint=hint)


def positions(measures: Sequence[TokenMeasures]) -> list[dict[str, Any]]:
    """Summaries by place in the context: `start` to `stop` - 1, in bins that double."""
    longest = max((one.start + len(one.kl) for one in measures), default=0)
    bins, start, stop = [], 0, FIRST_BIN
    while start < longest:
        part = [one.between(start, stop) for one in measures]
        bins.append({"start": start, "stop": min(stop, longest)} | summary(part))
        start, stop = stop, stop * 2
    return bins


def worst(documents: Sequence[Document], measures: Sequence[TokenMeasures]) -> list[dict[str, Any]]:
    """The documents that lost most, by mean KL."""
    rows = [
        {
            "source": document.source,
            "row": document.row,
            "labels": document.labels,
            "tokens": len(one.kl),
            "kl": float(one.kl.mean()),
            "perplexity_ratio": exp(float((one.nll_candidate - one.nll_base).mean())) if len(one.nll_base) else None,
            "top1_agreement": float(one.top1.mean()),
        }
        for document, one in zip(documents, measures, strict=True)
    ]
    by_kl: Callable[[dict[str, Any]], float] = lambda row: -row["kl"]  # noqa: E731
    return sorted(rows, key=by_kl)[:WORST]


def _perplexity(documents: Sequence[TokenMeasures]) -> dict[str, float | None]:
    base = clustered_mean([document.nll_base for document in documents])
    candidate = clustered_mean([document.nll_candidate for document in documents])
    if base is None or candidate is None:
        return dict.fromkeys(("base", "candidate", "ratio", "low", "high"))
    difference = clustered_mean([document.nll_candidate - document.nll_base for document in documents])
    assert difference is not None
    ratio = difference.exponential()
    return {
        "base": exp(base.mean),
        "candidate": exp(candidate.mean),
        "ratio": ratio.mean,
        "low": ratio.low,
        "high": ratio.high,
    }


def _shown(estimate: Estimate | None, lowest: float, highest: float) -> dict[str, float | None]:
    return dict(NOTHING) if estimate is None else estimate.clipped(lowest, highest).as_json()
