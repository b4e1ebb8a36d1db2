"""The charts, each from plain rows: what compare, evaluate, plan, search, deploy and the report draw.

Fields have fixed names, and what comes from a checkpoint is data only: never a field, a title or an expression. Words
and lines take the colour of the page they stand in, so that one picture serves a light and a dark one. Rows hold finite
numbers (`finite` leaves out the others).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from halfbyte.errors import UnsupportedError
from halfbyte.text import line

BLUE, ORANGE, GREEN, RED, GREY = "#2f6fde", "#d97706", "#0f9d6b", "#c8372d", "#7d8590"
SEVERAL = (BLUE, ORANGE, GREEN, RED, "#8b5cf6", "#0891b2", GREY)
HEAT = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""viridis, in nine steps: read alike by the colour-blind, in print and on either background."""

WIDTH = 560
MOST = 2**1023
"""What a double holds."""

Rows = Sequence[Mapping[str, Any]]


def library() -> Any:
    """altair. Raises UnsupportedError where it is missing."""
    try:
        import altair
        import vl_convert  # noqa: F401  draws what altair describes
    except ImportError:
        raise UnsupportedError(
            "pictures need altair and vl-convert-python", hint="pip install 'halfbyte[report]'"
        ) from None
    return altair


def finite(rows: Iterable[Mapping[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """Rows whose `fields` are all numbers that can be drawn."""
    return [dict(row) for row in rows if all(_is_number(row.get(field)) for field in fields)]


def bytes_by_role(rows: Rows) -> Any:
    """rows: role, when (before, after), bytes. Two bars for each role."""
    alt = library()
    return (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q").title("bytes").axis(format="~s", tickCount=6),
            y=alt.Y("role:N").title(None).sort(_in_order(rows, "role")),
            yOffset=alt.YOffset("when:N").sort(["before", "after"]),
            color=alt.Color("when:N").title(None).scale(domain=["before", "after"], range=[GREY, BLUE]),
        )
        .properties(width=WIDTH, height=alt.Step(12))
    )


def error_by_expert(rows: Rows, title: str) -> Any:
    """rows: layer, expert, error. One cell for each expert of each layer."""
    alt = library()
    layers, experts = sorted({row["layer"] for row in rows}), sorted({row["expert"] for row in rows})
    wide, high = max(1, min(28, WIDTH // len(experts))), max(3, min(22, 420 // len(layers)))
    values = [row["error"] for row in rows]
    ends = [min(values), max(values)]
    if ends[0] == ends[1]:
        ends = [ends[0], ends[0] + (abs(ends[0]) or 1.0)]
    return (
        alt.Chart(_data(sorted(rows, key=lambda row: (row["layer"], row["expert"]))))
        .mark_rect()
        .encode(
            x=alt.X("expert:O").scale(domain=experts).axis(labelAngle=0, values=_every(experts, 16)),
            y=alt.Y("layer:O").scale(domain=layers).axis(values=_every(layers, 20)),
            color=alt.Color("error:Q")
            .title(title)
            .scale(type="quantize", domain=ends, range=list(HEAT))
            .legend(format=".4f", orient="right"),
        )
        .properties(width=alt.Step(wide), height=alt.Step(high))
    )


def intervals(rows: Rows, title: str, *, zero: float | None = 0.0, percent: bool = False) -> Any:
    """rows: name, mean, and low and high where there is an interval; limit where there is a line to hold.

    zero: a line at this value.
    """
    alt = library()
    order = _in_order(rows, "name")
    y = alt.Y("name:N").title(None).sort(order).axis(labelLimit=260)
    axis = alt.X("mean:Q").title(title)
    means = alt.Chart(_data(rows)).mark_point(filled=True, size=60, color=BLUE, opacity=1)
    layers = [means.encode(x=axis.axis(format="%") if percent else axis, y=y)]
    if spans := finite(rows, "low", "high"):
        rule = alt.Chart(_data(spans)).mark_rule(strokeWidth=2, color=BLUE)
        layers.insert(0, rule.encode(x=alt.X("low:Q").title(title), x2="high:Q", y=y))
    if limits := finite(rows, "limit"):
        tick = alt.Chart(_data(limits)).mark_tick(color=RED, thickness=2, size=16)
        layers.append(tick.encode(x=alt.X("limit:Q").title(title), y=y))
    if zero is not None:
        rule = alt.Chart(_data([{"zero": zero}])).mark_rule(color=GREY, strokeDash=[3, 3])
        layers.insert(0, rule.encode(x=alt.X("zero:Q").title(title)))
    return alt.layer(*layers).properties(width=WIDTH - 100, height=alt.Step(22))


def by_layer(rows: Rows) -> Any:
    """rows: layer, what, value. A line for each `what`, each with an axis of its own."""
    alt = library()
    names, layers = _in_order(rows, "what"), [_shown(row["layer"]) for row in rows]
    x = alt.X("layer:Q").title("layer").scale(domain=[min(layers), max(max(layers), min(layers) + 1)], nice=False)
    return alt.vconcat(
        *(
            alt.Chart(_data([row for row in rows if row["what"] == name]))
            .mark_line(point=alt.OverlayMarkDef(size=18, color=colour), color=colour, strokeWidth=1.5)
            .encode(x=x.axis(tickMinStep=1, format="d"), y=alt.Y("value:Q").title(name))
            .properties(width=WIDTH, height=110)
            for name, colour in zip(names, SEVERAL, strict=False)
        )
    )


def recall(rows: Rows) -> Any:
    """rows: length, depth, who (language and model), recalled (share). A cell for each length and depth."""
    alt = library()
    return (
        alt.Chart(_data(rows))
        .mark_rect()
        .encode(
            x=alt.X("length:O").title("tokens of context").axis(labelAngle=0),
            y=alt.Y("depth:O").title("depth of the fact").axis(format=".0%"),
            color=alt.Color("recalled:Q")
            .title("recalled")
            .scale(type="quantize", domain=[0, 1], range=list(HEAT))
            .legend(format=".0%"),
            facet=alt.Facet("who:N", columns=2).title(None).sort(_in_order(rows, "who")),
        )
        .properties(width=alt.Step(46), height=alt.Step(18))
    )


def memory_by_phase(rows: Rows, usable_gib: float) -> Any:
    """rows: phase, term, gib. A stacked bar for each phase, a line where the card ends."""
    alt = library()
    phases = _in_order(rows, "phase")
    bars = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(gib):Q").title("GiB of one GPU"),
            y=alt.Y("phase:N").title(None).sort(phases),
            color=alt.Color("term:N")
            .title(None)
            .sort(_in_order(rows, "term"))
            .scale(domain=_in_order(rows, "term"), range=list(SEVERAL))
            .legend(orient="bottom", columns=3),
            order=alt.Order("at:Q"),
        )
    )
    line = alt.Chart(_data([{"usable": usable_gib}])).mark_rule(color=RED, strokeWidth=2).encode(x="usable:Q")
    return alt.layer(bars, line).properties(width=WIDTH, height=alt.Step(26))


def trades(rows: Rows) -> Any:
    """rows: gb, kl, what (the front, the choice, a usual recipe). Size against damage."""
    alt = library()
    x = alt.X("gb:Q").title("GB").scale(zero=False)
    y = alt.Y("kl:Q").title("KL, nats per token")
    front = alt.Chart(_data([row for row in rows if row["what"] == FRONT])).mark_line(color=GREY).encode(x=x, y=y)
    marked = [row for row in rows if row["what"] != FRONT]
    points = (
        alt.Chart(_data(marked))
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color("what:N")
            .title(None)
            .scale(domain=_in_order(marked, "what"), range=list(SEVERAL))
            .legend(orient="bottom", columns=2, labelLimit=260),
        )
    )
    return alt.layer(front, points).properties(width=WIDTH, height=260)


FRONT = "best trades, damages added up"


def day(rows: Rows) -> Any:
    """rows: hour, panel, what, value. A panel for each `panel`, a line in it for each `what`."""
    alt = library()
    panels = []
    for panel in _in_order(rows, "panel"):
        own = [row for row in rows if _shown(row["panel"]) == panel]
        panels.append(
            alt.Chart(_data(own))
            .mark_line(strokeWidth=1.5)
            .encode(
                x=alt.X("hour:Q").title(None).axis(values=[0, 6, 12, 18, 24], labelExpr="datum.value + ' h'"),
                y=alt.Y("value:Q").title(panel),
                color=alt.Color("what:N").title(None).scale(domain=_in_order(own, "what"), range=list(SEVERAL)),
            )
            .properties(width=WIDTH, height=110)
        )
    return alt.vconcat(*panels).resolve_scale(color="independent")


def _data(rows: Iterable[Mapping[str, Any]]) -> Any:
    return library().Data(values=[{key: _shown(value) for key, value in row.items()} for row in rows])


def _shown(value: Any) -> Any:
    """Words as they may be drawn: what is no character of XML ends vl-convert, and the process with it. Whole numbers
    that are no machine's become floating ones."""
    if isinstance(value, str):
        return line(value)
    return float(max(-MOST, min(MOST, value))) if isinstance(value, int) and abs(value) > 2**53 else value


def _in_order(rows: Rows, field: str) -> list[Any]:
    """The values of a field, each once, as they come."""
    return list(dict.fromkeys(_shown(row[field]) for row in rows))


def _every(values: Sequence[int], most: int) -> list[int]:
    """At most some `most` of the values, at even steps."""
    return list(values[:: max(1, -(-len(values) // most))])


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < MOST if isinstance(value, int) else math.isfinite(value)
