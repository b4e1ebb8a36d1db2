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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.table import ROOT, record, show
from halfbyte.numbers.betting import lower_bound
from halfbyte.numbers.paired import Pairs

SIZES, ACCURACIES = (50, 100, 200, 500, 1000), (0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
CLUSTER, SPREAD, SHARED = 10, 0.15, 0.7
"""Items of a cluster, how far its accuracy varies, and the share of items on which both models answer alike."""
ALPHA = 0.05


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
    width, height, left, top = 300, 200, 50, 30
    colours = ("#1b6ca8", "#2a9d8f", "#8ab17d", "#e9c46a", "#f4a261", "#e76f51")
    panels = (("coverage of 95 % intervals", 0.85, 1.0, 0.95), ("false passes at the margin", 0.0, 0.12, ALPHA))
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 290" font-family="sans-serif" font-size="11">']
    out.append('<rect width="860" height="290" fill="white"/>')
    for which, (title, low, high, wanted) in enumerate(panels):
        x0 = left + which * (width + 90)

        def place(n: float, value: float, x0: int = x0, low: float = low, high: float = high) -> str:
            across = x0 + width * math.log(n / SIZES[0]) / math.log(SIZES[-1] / SIZES[0])
            return f"{across:.1f},{top + height * (high - min(max(value, low), high)) / (high - low):.1f}"

        out.append(f'<text x="{x0}" y="18" font-size="13">{title}</text>')
        out.append(f'<rect x="{x0}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        out.append(
            f'<polyline points="{place(50, wanted)} {place(1000, wanted)}" stroke="#000" stroke-dasharray="1 3"/>'
        )
        for value in (low, wanted, high):
            y = place(50, value).split(",")[1]
            out.append(f'<text x="{x0 - 6}" y="{y}" text-anchor="end">{100 * value:.0f} %</text>')
        for n in SIZES:
            x = place(n, low).split(",")[0]
            out.append(f'<text x="{x}" y="{top + height + 15}" text-anchor="middle">{n}</text>')
        for clustered in (False, True):
            for accuracy, colour in zip(ACCURACIES, colours, strict=True):
                points = " ".join(
                    place(cell.n, cell[3 + which])
                    for cell in found
                    if (cell.accuracy, cell.clustered) == (accuracy, clustered)
                )
                dash = ' stroke-dasharray="5 3"' if clustered else ""
                out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        out.append(f'<text x="{x0 + width / 2}" y="{top + height + 30}" text-anchor="middle">items</text>')
    for row, (accuracy, colour) in enumerate(zip(ACCURACIES, colours, strict=True)):
        out.append(f'<text x="{left + 90 * row}" y="282" fill="{colour}">accuracy {accuracy:.0%}</text>')
    out.append('<text x="620" y="282">dashed: clusters of ten</text></svg>')
    return "\n".join(out) + "\n"


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
