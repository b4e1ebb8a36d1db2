"""What four bits cost: compare by slice, by position and by layer, each with its interval."""

from collections.abc import Iterator, Sequence
from typing import Any

from halfbyte.evidence.comparison import Compared, ComparisonResult, Figures, LayerFigures, Measured
from halfbyte.evidence.dossier import Dossier, identity
from halfbyte.plots.charts import by_layer, finite, intervals
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import hexadecimal, interval, number, short

TITLE = "What it costs: base against candidate"
MISSING = "Not compared yet. halfbyte compare BASE CANDIDATE --data FILE --slice FIELD makes this evidence."
MOST_ROWS = 60
"""Of slices in a picture and a table."""


def compared(dossier: Dossier) -> Section:
    """The comparisons that `halfbyte.json` holds, the latest first."""
    if not dossier.compare:
        return Section(TITLE, missing=MISSING)
    figures: list[Figure] = []
    lines: list[str] = []
    own = identity({row.file: row.sha256 for row in dossier.shards})
    for at, row in enumerate(reversed(dossier.compare)):
        lines.append(_says(row, own))
        figures += figures_of(row.figures, "" if at == 0 else f"-{at + 1}")
        lines += [short(note) for note in row.figures.notes]
    return Section(TITLE, lines, figures)


def _says(row: Compared, own: str) -> str:
    found = row.figures
    words = f"{number(found.documents, '{}')} documents, {number(found.tokens, '{}')} tokens"
    words += (
        f" (data {hexadecimal(row.data_sha256)}), base {hexadecimal(row.base)}: KL {interval(found.kl)} nats a token"
    )
    if found.top1_agreement is not None:
        words += f", same first token {interval(found.top1_agreement, '{:.1%}')}"
    return words + ("." if row.candidate == own else ". These figures are of other shards than those below.")


def figures_of(found: ComparisonResult, suffix: str = "") -> list[Figure]:
    """Pictures of one comparison: by slice, and by layer. suffix: for their names on a page."""
    figures = []
    rows = list(_rows(found))[:MOST_ROWS]
    drawn = [one for name, row in rows for one in _drawn(name, row)]
    if rows:
        table = Table("by slice, 95 % intervals over documents", COLUMNS, [_cells(name, row) for name, row in rows])
        if drawn:
            says = f"KL with 95 % intervals, all and by slice: {interval(found.kl)} nats a token over all."
            figures.append(Figure(f"compare{suffix}", intervals(drawn, "KL, nats per token"), says, [table]))
    if layers := _layers(found.layers):
        table = Table("where the two part, by layer", ["layer", *LAYER_FIGURES.values()], _layer_cells(found.layers))
        figures.append(Figure(f"layers{suffix}", by_layer(layers), "Where the two models part, by layer.", [table]))
    return figures


COLUMNS = ["tokens of", "documents", "tokens", "KL, nats", "perplexity", "candidate", "ratio", "same first token"]


def _rows(found: ComparisonResult) -> Iterator[tuple[str, Figures]]:
    def of(one: Measured, suffix: str) -> Iterator[tuple[str, Figures]]:
        yield f"all{suffix}", one
        for field, values in one.slices.items():
            for value, figures in values.items():
                yield f"{short(field, 40)} = {short(value, 60)}{suffix}", figures
        if len(one.positions) > 1:
            for span in one.positions:
                yield f"position {span.start} to {span.stop - 1}{suffix}", span

    if found.tokens:
        yield from of(found, "")
        if found.a4_sim is not None:
            yield from of(found.a4_sim, ", four-bit activations")


def _cells(name: str, row: Figures) -> list[str]:
    perplexity = row.perplexity
    ratio = "–"
    if perplexity is not None and perplexity.ratio is not None:
        ratio = number(perplexity.ratio, "{:.4f}")
        if perplexity.low is not None and perplexity.high is not None:
            ratio += f" [{number(perplexity.low, '{:.4f}')}, {number(perplexity.high, '{:.4f}')}]"
    return [
        name,
        number(row.documents, "{}"),
        number(row.tokens, "{}"),
        interval(row.kl),
        number(perplexity.base if perplexity else None),
        number(perplexity.candidate if perplexity else None),
        ratio,
        interval(row.top1_agreement, "{:.1%}"),
    ]


def _drawn(name: str, row: Figures) -> list[dict[str, Any]]:
    if row.kl is None:
        return []
    ends = finite([{"low": row.kl.low, "high": row.kl.high}], "low", "high")
    return finite([{"name": name, "mean": row.kl.mean} | (ends[0] if ends else {"low": None, "high": None})], "mean")


LAYER_FIGURES = {
    "hidden_error": "error of hidden states",
    "router_agreement": "same experts",
    "indexer_overlap": "same keys",
}


def _layers(rows: Sequence[LayerFigures]) -> list[dict[str, Any]]:
    return finite(
        (
            {"layer": row.layer, "what": words, "value": getattr(row, name)}
            for name, words in LAYER_FIGURES.items()
            for row in rows
        ),
        "value",
    )


def _layer_cells(rows: Sequence[LayerFigures]) -> list[list[str]]:
    return [
        [str(row.layer), number(row.hidden_error, "{:.4f}")]
        + [number(value, "{:.1%}") for value in (row.router_agreement, row.indexer_overlap)]
        for row in rows
    ]
