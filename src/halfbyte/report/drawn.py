"""What `--plot` of a command draws: the figures of the report, from that command's own document."""

from collections.abc import Callable, Mapping
from typing import Any

from halfbyte.errors import UnsupportedError
from halfbyte.evidence.comparison import ComparisonResult
from halfbyte.plots.charts import FRONT, finite, intervals, trades
from halfbyte.plots.parts import Figure, Table
from halfbyte.report.sections import compared, planned, recalled
from halfbyte.report.words import number, short, size

Document = Mapping[str, Any]


def of_compare(found: Document) -> list[Figure]:
    """found: as `compare --json` prints it."""
    result = ComparisonResult.model_validate(dict(found))
    return _some([*compared.figures_of(result), *(recalled.figures_of(result.recall) if result.recall else [])])


def of_plan(found: Document) -> list[Figure]:
    """found: as plan.json has it."""
    terms = [
        [short(term["name"], 80), short(term["phase"], 40), short(term["formula"]), number(term["gib"])]
        for term in found["terms"]
    ]
    return _some(
        planned.figures_of(dict(found), [Table("terms of one GPU", ["term", "phase", "formula", "GiB"], terms, text=3)])
    )


def of_evaluation(found: Document) -> list[Figure]:
    """found: as `evaluate --json` prints it, with a baseline or without."""
    return _some([_verdicts(found) if found["verdict"] is not None else _scores(found)])


def of_search(found: Document) -> list[Figure]:
    """found: as `search --json` prints it."""
    front = [{"gb": row["bytes"] / 1e9, "kl": row["predicted_kl"], "what": FRONT} for row in found["front"]]
    marked = [("chosen", found["chosen"]), *((row["name"], row) for row in found["usual"])]
    marked += [(f"front at {row['bytes'] / 1e9:.3g} GB", row) for row in found["front"] if row.get("kl") is not None]
    points = [{"gb": row["bytes"] / 1e9, "kl": row["kl"], "what": short(name, 60)} for name, row in marked]
    table = Table(
        "recipes",
        ["recipe", "bytes", "KL added up", "KL measured"],
        [
            [short(name, 60), str(row["bytes"]), number(row["predicted_kl"], "{:.5f}"), number(row["kl"], "{:.5f}")]
            for name, row in marked
        ],
    )
    chosen = found["chosen"]
    says = f"Size against damage: the choice takes {size(chosen['bytes'])} at KL {number(chosen['kl'], '{:.5f}')}."
    return [Figure("search", trades(finite([*front, *points], "gb", "kl")), says, [table])]


def _verdicts(found: Document) -> Figure:
    rows = found["suites"]
    drawn = [
        {
            "name": f"{short(row['name'], 60)}: {row['verdict']}",
            "mean": row["difference"],
            "low": row["interval"][0],
            "high": row["interval"][1],
            "limit": -row["margin"],
        }
        for row in rows
    ]
    table = Table(
        "points; 90 % intervals of candidate less baseline",
        ["suite", "verdict", "n", "baseline", "candidate", "difference", "low", "high", "margin"],
        [
            [short(row["name"], 60), row["verdict"], str(row["n"])]
            + [number(row[name], "{:.2f}") for name in ("baseline", "candidate", "difference")]
            + [number(end, "{:+.2f}") for end in row["interval"]]
            + [number(row["margin"], "{:g}")]
            for row in rows
        ],
        text=2,
    )
    says = f"{found['verdict']}: difference of candidate less baseline by suite; the red mark is the margin."
    chart = intervals(finite(drawn, "mean"), "points, candidate less baseline")
    return Figure("evaluate", chart, says, [table])


def _scores(found: Document) -> Figure:
    rows = [{"name": short(row["name"], 60), "mean": row["candidate"]} for row in found["suites"]]
    drawn = finite(rows, "mean")
    if not drawn:
        raise UnsupportedError("nothing was scored, so there is nothing to draw")
    table = Table(
        "points",
        ["suite", "n", "candidate"],
        [[row["name"], str(row["n"]), number(row["candidate"])] for row in found["suites"]],
    )
    return Figure("evaluate", intervals(drawn, "points", zero=None), "Points of the candidate by suite.", [table])


def _some(figures: list[Figure]) -> list[Figure]:
    if not figures:
        raise UnsupportedError("there is nothing to draw", hint="there were no data, and no figures")
    return figures


DRAWN: dict[str, Callable[[Document], list[Figure]]] = {
    "compare": of_compare,
    "plan": of_plan,
    "evaluate": of_evaluation,
    "search": of_search,
}
"""Command -> what its `--plot` draws."""
