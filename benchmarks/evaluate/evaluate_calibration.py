"""Whether verdicts and intervals of `halfbyte evaluate` are true: simulated models whose difference is known.

    python -m benchmarks.evaluate.evaluate_calibration [--runs 1000] [--sequential 300]

Pairs of a baseline of a given accuracy and a candidate that differs: correlated right-or-wrong answers, alone or in
clusters of ten that share a difficulty. Coverage of the 95 % interval; how often a candidate that is worse by exactly
the margin passes (at most 5 %); the same with --sequential, looked at after every tenth item. Draws
docs/evaluate-calibration.svg. Seeds are fixed.
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.table import ROOT, record, show
from halfbyte.numbers.betting import lower_bound
from halfbyte.numbers.paired import Pairs
from halfbyte.plots.charts import GREY, SEVERAL, library
from halfbyte.plots.drawing import alone, svg

SIZES, ACCURACIES = (50, 100, 200, 500, 1000), (0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
CLUSTER, SPREAD, SHARED = 10, 0.15, 0.7
"""Items of a cluster, how far its accuracy varies, and the share of items on which both models answer alike."""
ALPHA = 0.05
KINDS = ("alone", "in clusters of ten")


class Cell(NamedTuple):
    n: int
    accuracy: float
    clustered: bool
    coverage: float
    false_pass: float


def draw(
    chance: np.random.Generator, n: int, accuracy: float, loss: float, clustered: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Candidate and baseline, 0 or 1 [n]; the candidate's accuracy is lower by `loss`."""
    level = np.full(n, accuracy)
    if clustered:
        room = min(SPREAD, accuracy - loss, 1 - accuracy)
        level += np.repeat(chance.uniform(-room, room, -(-n // CLUSTER)), CLUSTER)[:n]
    shared = chance.random(n) < SHARED
    ours, theirs = chance.random(n), chance.random(n)
    ours = np.where(shared, theirs, ours)
    return (ours < level - loss).astype(np.float64), (theirs < level).astype(np.float64)


def cells(runs: int) -> Iterator[Cell]:
    for clustered in (False, True):
        for n in SIZES:
            for accuracy in ACCURACIES:
                chance = np.random.default_rng([n, round(100 * accuracy), clustered])
                loss = min(0.05, accuracy / 2)
                labels = [str(i // CLUSTER) for i in range(n)] if clustered else None
                covered = passed = 0
                for _ in range(runs):
                    pairs = Pairs(*draw(chance, n, accuracy, loss, clustered), labels)
                    low, high = pairs.interval(0.95)
                    covered += low <= -loss <= high
                    passed += pairs.p_above(-loss) < ALPHA
                yield Cell(n, accuracy, clustered, covered / runs, passed / runs)


def sequential(runs: int) -> Iterator[Cell]:
    for n in (100, 500, 1000):
        for accuracy in (0.5, 0.8, 0.95):
            chance = np.random.default_rng([n, round(100 * accuracy), 7])
            loss, passed = 0.05, 0
            for _ in range(runs):
                ours, theirs = draw(chance, n, accuracy, loss, False)
                values = ours - theirs
                passed += any(lower_bound(values[:t], ALPHA, n) > -loss for t in range(10, n + 1, 10))
            yield Cell(n, accuracy, False, math.nan, passed / runs)


def plot(found: list[Cell]) -> str:
    """Coverage left, false passes right; a line for each accuracy, dashed where items cluster."""
    alt = library()
    panels = (
        ("coverage", "coverage of 95 % intervals", [0.85, 1], 0.95),
        ("false_pass", "false passes", [0, 0.12], ALPHA),
    )

    def panel(field: str, title: str, domain: list[float], wanted: float) -> Any:
        rows = [
            {"items": cell.n, "accuracy": f"{cell.accuracy:.0%}", "items are": KINDS[cell.clustered], "share": value}
            for cell in found
            if math.isfinite(value := getattr(cell, field))
        ]
        lines = (
            alt.Chart(alt.Data(values=rows))
            .mark_line()
            .encode(
                x=alt.X("items:Q").scale(type="log", domain=[SIZES[0], SIZES[-1]]).axis(values=list(SIZES)),
                y=alt.Y("share:Q")
                .title(title)
                .scale(domain=domain, clamp=True, zero=False, nice=False)
                .axis(format=".0%"),
                color=alt.Color("accuracy:N").sort(None).scale(range=list(SEVERAL)),
                strokeDash=alt.StrokeDash("items are:N").sort(None).scale(domain=list(KINDS), range=[[1, 0], [5, 3]]),
            )
        )
        level = (
            alt.Chart(alt.Data(values=[{"share": wanted}]))
            .mark_rule(strokeDash=[1, 3], color=GREY)
            .encode(y=alt.Y("share:Q").scale(domain=domain, zero=False, nice=False))
        )
        return (level + lines).properties(width=300, height=200)

    chart = alt.hconcat(*(panel(*one) for one in panels))
    return alone(svg(chart, "calibration", "Coverage of intervals and false passes, by number of items and accuracy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--sequential", type=int, default=300)
    options = parser.parse_args()
    found = list(cells(options.runs))
    looked = list(sequential(options.sequential))
    (ROOT / "docs/evaluate-calibration.svg").write_text(plot(found))
    columns = ["items", *(f"{accuracy:.0%}" for accuracy in ACCURACIES)]
    for clustered in (False, True):
        rows = []
        for n in SIZES:
            here = [cell for cell in found if cell.n == n and cell.clustered == clustered]
            rows.append([str(n), *(f"{cell.coverage:.1%} / {cell.false_pass:.1%}" for cell in here)])
        show(f"coverage of 95 % / false passes{', clusters of ten' if clustered else ''}", columns, rows)
    rows = [[str(cell.n), f"{cell.accuracy:.0%}", f"{cell.false_pass:.1%}"] for cell in looked]
    show("sequential: false passes at any look", ["items", "accuracy", "false passes"], rows)
    plain = {"runs": options.runs, "sequential_runs": options.sequential}
    record(
        "evaluate_calibration", plain | {"cells": found, "sequential": [cell._replace(coverage=0) for cell in looked]}
    )


if __name__ == "__main__":
    main()
