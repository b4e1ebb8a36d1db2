"""Recall by length and depth: facts hidden in long contexts, and where they were found again."""

from typing import Any

from halfbyte.evidence.comparison import Recall
from halfbyte.evidence.dossier import Dossier
from halfbyte.plots.charts import finite, intervals, recall
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import interval, number, short

TITLE = "Recall by length and depth"
MISSING = "No recall measured yet. halfbyte compare BASE CANDIDATE --recall 1k,16k makes this evidence."
SIDES = ("base", "candidate")


def recalled(dossier: Dossier) -> Section:
    """Of the latest comparison that has it."""
    rows = next((row.figures.recall for row in reversed(dossier.compare) if row.figures.recall), None)
    return Section(TITLE, missing=MISSING) if not rows else Section(TITLE, figures=figures_of(rows))


def figures_of(rows: list[Recall]) -> list[Figure]:
    columns = ["tokens", "language", "probes", "log p, base", "log p, candidate", "difference"]
    columns += ["recalled, base", "recalled, candidate"]
    table = Table(
        "recall by length, 95 % intervals over probes",
        columns,
        [
            [str(row.length), short(row.language, 40), number(row.probes, "{}")]
            + [interval(row.log_probability.get(side)) for side in (*SIDES, "difference")]
            + [interval(row.recalled.get(side), "{:.0%}") for side in SIDES]
            for row in rows
        ],
    )
    by_length = _by_length(rows)
    figures = []
    if by_length:
        says = "Share of hidden facts that are recalled whole, by length, language and model."
        figures.append(Figure("recall", intervals(by_length, "recalled", zero=None, percent=True), says, [table]))
    if by_depth := _by_depth(rows):
        deep = Table(
            "recall by length and depth",
            ["tokens", "language", "depth", "probes", "log p, difference", "recalled, base", "recalled, candidate"],
            [
                [str(row.length), short(row.language, 40), number(one.depth, "{:.0%}"), number(one.probes, "{}")]
                + [number(one.difference, "{:+.3f}")]
                + [number(one.recalled.get(side), "{:.0%}") for side in SIDES]
                for row in rows
                for one in row.depths
            ],
            text=2,
        )
        says = "Share of hidden facts that are recalled, by length of the context and depth of the fact in it."
        figures.append(Figure("recall-depth", recall(by_depth), says, [deep]))
    return figures


def _by_length(rows: list[Recall]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        for side in SIDES:
            one = row.recalled.get(side)
            if one is None:
                continue
            ends = finite([{"low": one.low, "high": one.high}], "low", "high")
            name = f"{row.length} {short(row.language, 40)}, {side}"
            found.append({"name": name, "mean": one.mean} | (ends[0] if ends else {"low": None, "high": None}))
    return finite(found, "mean")


def _by_depth(rows: list[Recall]) -> list[dict[str, Any]]:
    return finite(
        (
            {
                "length": row.length,
                "depth": one.depth,
                "who": f"{short(row.language, 40)}, {side}",
                "recalled": one.recalled.get(side),
            }
            for row in rows
            for one in row.depths
            for side in SIDES
        ),
        "depth",
        "recalled",
    )
