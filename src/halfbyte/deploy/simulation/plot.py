"""A simulated day as a picture: requests, replicas wished and at work, and what requests wait."""

from typing import Any

from halfbyte.deploy.simulation.day import Outcome
from halfbyte.plots.charts import day
from halfbyte.plots.parts import Figure, Table

EVERY = 8
"""Of the day's moments is drawn."""


def picture(outcome: Outcome, title: str) -> Figure:
    moments = outcome.series[::EVERY]
    rows: list[dict[str, Any]] = []
    for panel, what, at in (
        ("requests a second", "arriving", 1),
        ("replicas", "wished", 2),
        ("replicas", "at work", 3),
        ("seconds waited", "waited", 4),
    ):
        rows += [{"hour": moment[0], "panel": panel, "what": what, "value": moment[at]} for moment in moments]
    table = Table(
        title,
        ["hour", "requests a second", "replicas wished", "at work", "seconds waited"],
        [
            [f"{hour:.2f}", f"{rate:.3f}", str(wished), str(work), f"{waited:.1f}"]
            for hour, rate, wished, work, waited in moments
        ],
    )
    return Figure("day", day(rows), f"{title}: at most {outcome.peak_replicas} replicas.", [table])
