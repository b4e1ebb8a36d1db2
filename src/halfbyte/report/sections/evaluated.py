"""Evaluation verdicts: what benchmarks could decide."""

from halfbyte.evidence.comparison import Evaluated
from halfbyte.evidence.dossier import Dossier, identity
from halfbyte.plots.charts import finite, intervals
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import hexadecimal, number, short

TITLE = "Evaluation"
MISSING = (
    "Not evaluated yet. halfbyte evaluate --suite SUITE --candidate FOLDER --baseline URL --margin POINTS makes this "
    "evidence."
)


def evaluated(dossier: Dossier) -> Section:
    if not dossier.evaluate:
        return Section(TITLE, missing=MISSING)
    own = identity({row.file: row.sha256 for row in dossier.shards})
    table = Table(
        "verdicts; 90 % intervals of candidate less baseline, in points",
        [
            "suite",
            "baseline",
            "verdict",
            "n",
            "difference",
            "interval",
            "margin",
            "longest context",
            "records",
            "shards",
        ],
        [_cells(row, own) for row in dossier.evaluate],
        text=3,
    )
    drawn = finite(
        (
            {
                "name": f"{short(row.suite, 60)}: {short(row.verdict, 20)}",
                "mean": row.difference,
                "low": row.interval[0] if row.interval and len(row.interval) == 2 else None,
                "high": row.interval[1] if row.interval and len(row.interval) == 2 else None,
                "limit": None if row.margin is None else -row.margin,
            }
            for row in dossier.evaluate
            if row.suite is not None
        ),
        "mean",
    )
    drawn = [row for row in drawn if all(row[end] is None or finite([row], end) for end in ("low", "high", "limit"))]
    lines = [f"{short(row.suite, 60)}: {short(row.verdict, 20)}" for row in dossier.evaluate]
    if not drawn:
        return Section(TITLE, lines, tables=[table])
    says = "Difference of candidate less baseline by suite, with 90 % intervals; the red mark is the margin. "
    figure = Figure("evaluate", intervals(drawn, "points, candidate less baseline"), says + "; ".join(lines), [table])
    return Section(TITLE, figures=[figure])


def _cells(row: Evaluated, own: str) -> list[str]:
    ends = "–"
    if row.interval:
        ends = " … ".join(number(end, "{:+.2f}") for end in row.interval)
    return [
        short(row.suite or "–", 80),
        short(row.baseline or "–", 80),
        short(row.verdict or "–", 20),
        number(row.n, "{}"),
        number(row.difference, "{:+.2f}"),
        ends,
        number(row.margin, "{:g}"),
        str(row.max_context),
        hexadecimal(row.records_sha256),
        "these" if row.candidate == own else "others",
    ]
